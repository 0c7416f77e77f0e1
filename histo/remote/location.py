"""Name files by URIs, as `s3://bucket/a.svs`, and find their file systems."""

import errno
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote, urlsplit

from upath import UPath

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

AnyPath: TypeAlias = Path | UPath
"""A local path, or the URI of a place in object storage."""
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
"""Extras of histo's installation that the kinds of storage need."""
_LOUD = ("gcsfs", "s3fs", "fsspec", "aiobotocore", "botocore", "asyncio")
"""Loggers of libraries that print what is tried again."""
WEB = ("http", "https")
"""Kinds of storage whose folders cannot be listed."""


def at(place: str) -> AnyPath:
    """Return the place that a text names."""
    return UPath(place) if scheme(place) is not None else Path(place)


def scheme(text: str) -> str | None:
    """Return what kind of storage a URI names; None for a local path.

    Examples:
        >>> scheme("S3://bucket/a.svs"), scheme("/data/a.svs"), scheme("a:b.svs")
        ('s3', None, None)
    """
    match = _URI.match(text)
    return match[1].lower() if match else None


def steps(uri: str) -> tuple[str, ...]:
    """Return the bucket or server of a URI, and the components of its path, as people read them.

    Examples:
        >>> steps("https://me:key@host/slides/a%20b.svs?token=1"), steps("s3://bucket/a?b.svs")
        (('host', 'slides', 'a b.svs'), ('bucket', 'a?b.svs'))
    """
    path = shown(uri).partition("://")[2]
    return tuple(unquote(step) if scheme(uri) in WEB else step for step in path.split("/") if step)


def shown(uri: str) -> str:
    """Leave out of a web address what may be a password or a signature: results are kept, and shown to others.

    Examples:
        >>> shown("https://me:key@host/a.svs?X-Amz-Signature=1"), shown("s3://bucket/a?b.svs")
        ('https://host/a.svs', 's3://bucket/a?b.svs')
    """
    if scheme(uri) not in WEB:
        return uri
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def canonical(uri: str) -> str:
    """Write a URI as lists of its storage do."""
    files, path = connect(uri)
    return uri_of(files, path)


def uri_of(files: "AbstractFileSystem", path: str) -> str:
    """Return the URI of a path in a file system."""
    return str(files.unstrip_protocol(path)).replace(":///", "://")


def connect(uri: str) -> "tuple[AbstractFileSystem, str]":
    """Return the file system of a URI, and the path that it has there.

    What has to be known of it, as credentials and addresses, is found where its library looks: in the environment, in
    its own files, or in those of fsspec.

    Raises:
        OSError: If there is no such kind of storage, or its library is not installed; `strerror` is the reason in one
            line, `filename` the URI.
    """
    from fsspec.core import url_to_fs  # noqa: PLC0415 -- it loads slowly, and most runs need none

    kind = scheme(uri)
    options: dict[str, Any] = {"use_listings_cache": False}  # others write, too
    try:
        found: tuple[AbstractFileSystem, str] = url_to_fs(uri, **options)
    except ImportError:
        extra = _EXTRAS.get(kind or "")
        way = f"pip install 'histo[{extra}]'" if extra else f"install the library that fsspec needs for {kind}://"
        raise OSError(errno.EPROTONOSUPPORT, f"needs a library that is not installed; {way}", shown(uri)) from None
    except ValueError as error:
        reason = f"{error}; give a path, or s3://, gs:// or https://"
        raise OSError(errno.EPROTONOSUPPORT, reason[0].lower() + reason[1:], shown(uri)) from None
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what is wrong is said here, once
    return found
