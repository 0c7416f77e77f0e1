"""Base of all settings, and the types of their fields."""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator
from upath import UPath

from histo.remote.location import WEB, AnyPath, connect, scheme


class Spec(BaseModel):
    """Base of every settings class: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    COMMON: ClassVar[frozenset[str]] = frozenset()
    """Fields that `--help` lists beside the required ones, nested ones dotted; if there are none, it lists all."""
    POSITIONAL: ClassVar[str | None] = None
    """Field whose value may stand on the command line without its flag."""


def changed_names(spec: Spec, fields: Iterable[str]) -> Iterator[str]:
    """Yield the names of those settings that are not their defaults, those of a section as `section.name`."""
    for name in fields:
        value = getattr(spec, name)
        if isinstance(value, Spec):
            yield from (f"{name}.{below}" for below in changed_names(value, type(value).model_fields))
        elif value != type(spec).model_fields[name].default:
            yield name


def _local(path: Any) -> Any:
    """Refuse what names no local file, and cannot be made to."""
    if path == "":
        raise ValueError("the path is empty")
    if isinstance(path, str) and "\0" in path:
        raise ValueError("the path has a NUL character")
    if isinstance(path, str) and scheme(path) == "file":
        return unquote(path.partition("://")[2])
    if isinstance(path, str) and scheme(path) is not None:
        raise ValueError("cannot be in object storage; give a path that all nodes see")
    return path


def _absolute(path: Path) -> Path:
    """Write a path out from the root on; one that no file can have is an error, one that cannot be read is none."""
    try:
        path = path.expanduser()
    except RuntimeError:
        raise ValueError("there is no such user; write the path out") from None
    try:
        path = path.absolute()
    except OSError:
        raise ValueError("the working folder is gone; write the path out, or go to another folder") from None
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError(f"{error.strerror}; give another path") from None
    return path


AbsolutePath = Annotated[Path, BeforeValidator(_local), AfterValidator(_absolute)]
"""A path that keeps its meaning in a worker with another working folder; relative ones start at the caller's."""


def _place(place: Any) -> Any:
    """Write a path or a pattern of paths out from the root on; URIs are what they are."""
    text = os.fspath(place) if isinstance(place, os.PathLike) else place
    if not isinstance(text, str) or scheme(text) not in (None, "file"):
        return text
    return str(_absolute(Path(_local(text))))


Place = Annotated[str, BeforeValidator(_place)]
"""An absolute path, a pattern of such paths, or a URI as `s3://bucket/folder`."""


def stored_path(place: Any) -> AnyPath:
    """Make a path of what a person writes, or the URI of a place that files can be written to.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(place, str) and scheme(place) in WEB:
        raise ValueError("cannot be on a web server; give a folder that all nodes see, or s3:// or gs://")
    if isinstance(place, UPath) or (isinstance(place, str) and scheme(place) not in (None, "file")):
        try:
            connect(str(place))
        except OSError as error:
            raise ValueError(error.strerror) from None
        return UPath(str(place).rstrip("/"))
    if not isinstance(place, str | os.PathLike):
        raise ValueError("is no path")  # noqa: TRY004 -- pydantic's word for bad input
    return _absolute(Path(_local(place)))


StoredPath = Annotated[AnyPath, PlainValidator(stored_path), PlainSerializer(str)]
"""An absolute path, or a URI as `s3://bucket/folder`, where results are."""


def _as_list(paths: Any) -> Any:
    return [paths] if isinstance(paths, str | os.PathLike) else paths


AbsolutePaths = Annotated[list[AbsolutePath], BeforeValidator(_as_list), Field(min_length=1)]
"""One or more paths: the flag several times, or once with commas; a path that has a comma itself in double quotes."""

StoredPaths = Annotated[list[StoredPath], BeforeValidator(_as_list), Field(min_length=1)]
"""Likewise; URIs may be among them."""

SpecType = TypeVar("SpecType", bound=Spec)
