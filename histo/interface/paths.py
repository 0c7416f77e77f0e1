"""Paths as Python's users write them."""

import os
from pathlib import Path

from upath import UPath

from histo.errors import UsageError
from histo.remote.location import AnyPath
from histo.spec.base import stored_path

StrPath = str | os.PathLike[str]


def full_path(path: StrPath) -> Path:
    """Write a path out from the root on; one that begins with `~` starts at the user's home folder."""
    return Path(path).expanduser().absolute()


def full_place(path: StrPath | UPath) -> AnyPath:
    """Likewise; a URI as `s3://bucket/folder` names a place in object storage.

    Raises:
        UsageError: If that is no place, or the library of its storage is not installed.
    """
    try:
        return stored_path(path)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
