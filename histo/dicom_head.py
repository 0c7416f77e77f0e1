"""Read the header of a DICOM file, a bounded number of bytes of it.

The bound holds for deflated files, too.

Files are listed by the driver, before anything is isolated: what a file needs more of is left to the worker that opens
it. A deflated file is inflated as far as the bound.
"""

import io
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, cast

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from histo.regular_file import open_regular

MOST_BYTES = 512 * 1024
"""Bytes of a file that are read, or inflated; values that are not asked for are skipped, and do not count."""
_PREAMBLE = 132


def read_head(path: Path, keywords: Sequence[str]) -> tuple[str, ...]:
    """Return values from the beginning of a DICOM file as text; empty where it has none, or none within the bound.

    Args:
        path: The file.
        keywords: What the values are called in the standard.
    """
    return _texts(read_elements(path, keywords), keywords)


def parse_head(file: BinaryIO, keywords: Sequence[str]) -> tuple[str, ...]:
    """Return values of a DICOM file that is open at its beginning; see `read_head`."""
    return _texts(_parsed(lambda: nullcontext(file), keywords), keywords)


def _texts(header: Dataset | None, keywords: Sequence[str]) -> tuple[str, ...]:
    return tuple("" if header is None else str(header.get(keyword) or "").strip() for keyword in keywords)


def read_elements(path: Path, keywords: Sequence[str]) -> Dataset | None:
    """Return elements from the beginning of a DICOM file; None where they cannot be read within the bound.

    Args:
        path: The file.
        keywords: What the elements are called in the standard.
    """
    return _parsed(lambda: open_regular(path), keywords)


def _parsed(opened: Callable[[], AbstractContextManager[BinaryIO]], keywords: Sequence[str]) -> Dataset | None:
    tags = [BaseTag(tag_for_keyword(keyword) or 0) for keyword in keywords]
    try:
        with opened() as file, warnings.catch_warnings(action="ignore"):  # opening the file records them
            header = _read(file, tags)
            for _ in header:  # values are converted when they are looked at, and may not be what they should be
                pass
            return header
    except Exception:  # noqa: BLE001 -- pydicom raises what its parser runs into; opening the file says what is wrong
        return None


def _read(file: BinaryIO, tags: list[BaseTag]) -> Dataset:
    last, wanted = max(tags), [int(tag) for tag in tags]
    bounded = cast(BinaryIO, _Bounded(file))
    if _is_deflated(bounded):
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(bounded.read(MOST_BYTES), MOST_BYTES)
        return read_dataset(
            io.BytesIO(inflated), False, True, stop_when=lambda tag, *_: tag > last, specific_tags=wanted
        )
    bounded.seek(0)
    return read_partial(bounded, stop_when=lambda tag, *_: tag > last, specific_tags=wanted, force=True)


def _is_deflated(file: BinaryIO) -> bool:
    """Read the group that says how the others are stored, and stop behind it."""
    file.seek(_PREAMBLE if file.read(_PREAMBLE).endswith(b"DICM") else 0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
    return str(meta.get("TransferSyntaxUID", "")) == DeflatedExplicitVRLittleEndian


class _Bounded:
    """A file of which no more than so many bytes can be read; places may be skipped."""

    def __init__(self, file: BinaryIO) -> None:
        self._left = 2 * MOST_BYTES  # what says how a file is stored is read twice
        self.seek, self.tell = file.seek, file.tell
        self._read = file.read

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes.

        Raises:
            EOFError: If that is more than is left of the bound.
        """
        if not 0 <= size <= self._left:
            raise EOFError(f"more than {MOST_BYTES} bytes")
        self._left -= size
        return self._read(size)
