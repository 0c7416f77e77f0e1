"""Recognise files that OpenSlide does not open, and say the way out."""

from collections.abc import Iterable
from pathlib import Path

import tifffile

from histo.slides.readers.tiff_index import quiet_tifffile

VIPS = "vips (`vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg`)"
BIOFORMATS = "bfconvert of Bio-Formats (`bfconvert -tilex 512 -tiley 512 IN OUT.tif`)"
CONVERTED = {
    **dict.fromkeys((".vsi", ".lif", ".nd2", ".oir", ".zvi"), BIOFORMATS),
    **dict.fromkeys((".jp2", ".j2k", ".jpx"), VIPS),
}
"""Extensions of microscopes' files that OpenSlide does not open, and what makes slides of them."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_KINDS = {
    b"\0\0\0\x0cjP  ": ("a JPEG 2000 image", VIPS),
    b"\xff\x4f\xff\x51": ("a JPEG 2000 image", VIPS),
    b"\xff\xd8\xff": ("a JPEG image", VIPS),
    b"\x89PNG\r\n": ("a PNG image", VIPS),
    b"\x70\0\0\0": ("a Leica LIF file", BIOFORMATS),
    b"\xda\xce\xbe\x0a": ("a Nikon ND2 file", BIOFORMATS),
    b"ZISRAWFILE": ("a Zeiss CZI file", BIOFORMATS),
}
"""How files of some kinds begin; of CZI, OpenSlide opens some."""
_STUDIES = {"CT": "a CT study", "MR": "an MRI study"}


def what_else(path: str) -> str | None:
    """Say of a file that OpenSlide does not open what it is, and the way out; None if that is not known."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(132)
    except OSError:
        return None
    if head[128:] == b"DICM":
        return _study(path)
    if head.startswith(_TIFF):
        return _strips(path)
    found = next((kind for start, kind in _KINDS.items() if head.startswith(start)), None)
    return found and f"is {found[0]}, which OpenSlide does not open; convert it with {found[1]}"


def ways_out(kinds: Iterable[str]) -> str:
    """Say how slides are made of files with these extensions; nothing of those that are no slides anyway.

    Examples:
        >>> ways_out([".txt"])
        ''
    """
    by_tool = {tool: [kind for kind in sorted(kinds) if CONVERTED.get(kind) == tool] for tool in (BIOFORMATS, VIPS)}
    return "".join(f"; convert {', '.join(found)} with {tool}" for tool, found in by_tool.items() if found)


def _study(path: str) -> str | None:
    from histo.dicom_head import read_head  # noqa: PLC0415 -- pydicom loads decoders that slides do without

    (modality,) = read_head(Path(path), ["Modality"])
    if modality in ("", "SM"):  # slide microscopy
        return None
    if modality in _STUDIES:
        return f"is of {_STUDIES[modality]} (DICOM), and no slide; label its folder with --studies, or leave it out"
    return f"is DICOM of modality {modality!r}, and no slide (SM); leave it out"


def _strips(path: str) -> str | None:
    quiet_tifffile()
    try:
        with tifffile.TiffFile(path) as file:
            stripped = not any(page.is_tiled for page in file.pages if isinstance(page, tifffile.TiffPage))
    except Exception:  # noqa: BLE001 -- tifffile raises whatever its parser runs into; then the file is damaged
        return None
    if not stripped:
        return None
    return f"is a TIFF of strips, not of tiles, which OpenSlide does not open; convert it with {VIPS}"
