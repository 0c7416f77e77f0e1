"""Slides whose blocks are coded in every way that scanners use, written block by block."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from histo.resample import Pixels
from histo.slides.readers.base import Level
from histo.slides.readers.tiff import DirectReader

Encode = Callable[[Pixels], bytes]
RGB, YCBCR = 2, 6


def jpeg(subsampling: tuple[int, int] = (2, 2), adobe_rgb: bool = False, drop_adobe: bool = False) -> Encode:
    """Code as JPEG, as YCbCr or as RGB, whose marker can be left out."""

    def encode(block: Pixels) -> bytes:
        if not adobe_rgb:
            return bytes(imagecodecs.jpeg8_encode(block, level=85, subsampling=subsampling))
        data = bytes(imagecodecs.jpeg8_encode(block, level=85, colorspace="RGB", outcolorspace="RGB"))
        return b"".join(part for part in segments(data) if not (drop_adobe and part[:2] == b"\xff\xee"))

    return encode


def lossless_jpeg(block: Pixels) -> bytes:
    """Code as JPEG without loss, as RGB, which OpenSlide reads and the direct reader does not."""
    return bytes(imagecodecs.jpeg8_encode(block, lossless=True, level=100))


def jpeg_2000(ycbcr: bool = False, level: int = 0) -> Encode:
    """Code as a JPEG 2000 codestream as Aperio does, without loss at level 0."""

    def encode(block: Pixels) -> bytes:
        colours = np.array(Image.fromarray(block).convert("YCbCr")) if ycbcr else block
        return bytes(
            imagecodecs.jpeg2k_encode(colours, level=level, codecformat="j2k", mct=not ycbcr, reversible=not level)
        )

    return encode


def segments(data: bytes) -> Iterator[bytes]:
    """Split a JPEG stream: the first marker, each segment up to the scan, and all the rest."""
    yield data[:2]
    place = 2
    while data[place + 1] != 0xDA:
        stop = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        yield data[place:stop]
        place = stop
    yield data[place:]


@dataclass(frozen=True)
class Format:
    """How a file is written."""

    encode: Encode
    colours: int = YCBCR
    compression: int = 7
    shared_tables: bool = False
    block: tuple[int, int] = (64, 64)
    extra: dict[str, Any] = field(default_factory=dict)


APERIO = {"description": "Aperio Image Library|MPP = 0.25"}
FORMATS = {
    "jpeg 4:2:0": Format(jpeg()),
    "jpeg 4:2:2": Format(jpeg((2, 1))),
    "jpeg 4:4:4": Format(jpeg((1, 1))),
    "jpeg, shared tables": Format(jpeg(), shared_tables=True),
    "jpeg, RGB": Format(jpeg(adobe_rgb=True), RGB),
    "jpeg, RGB without a marker": Format(jpeg(adobe_rgb=True, drop_adobe=True), RGB),
    "jpeg, RGB without a marker, shared tables": Format(
        jpeg(adobe_rgb=True, drop_adobe=True), RGB, shared_tables=True, extra=APERIO
    ),
    "jpeg, blocks of 512 px": Format(jpeg(), block=(512, 512)),
    "jpeg, blocks of 48 x 80 px": Format(jpeg(), block=(48, 80)),
    "BigTIFF": Format(jpeg(), extra={"bigtiff": True}),
    "Aperio, JPEG 2000": Format(jpeg_2000(), RGB, 33005, extra=APERIO),
    "Aperio, JPEG 2000, lossy": Format(jpeg_2000(level=40), RGB, 33005, extra=APERIO),
    "Aperio, JPEG 2000, YCbCr": Format(jpeg_2000(ycbcr=True), YCBCR, 33003, extra=APERIO),
}


def write_coded(path: Path, levels: Sequence[Pixels], form: Format = FORMATS["jpeg 4:2:0"], mpp: float = 0.25) -> str:
    """Write a pyramid, and return its path."""
    extra = dict(form.extra)
    with tifffile.TiffWriter(path, bigtiff=extra.pop("bigtiff", False)) as file:
        for number, pixels in enumerate(levels):
            blocks = [form.encode(block) for block in cut(pixels, *form.block)]
            tables = b""
            if form.shared_tables:
                tables = b"".join(part for part in segments(blocks[0]) if part[:2] in (b"\xff\xdb", b"\xff\xc4"))
                blocks = [b"".join(p for p in segments(b) if p[:2] not in (b"\xff\xdb", b"\xff\xc4")) for b in blocks]
            file.write(
                iter(blocks),
                shape=pixels.shape,
                dtype=np.uint8,
                tile=form.block[::-1],
                photometric="rgb",
                compression=form.compression,
                subfiletype=int(number > 0),
                resolution=(1e4 / mpp, 1e4 / mpp),
                resolutionunit="CENTIMETER",
                metadata=None,
                extratags=[(347, 7, None, b"\xff\xd8" + tables + b"\xff\xd9", True)] if tables else [],
                **extra,
            )
    for number in range(len(levels)):
        set_tag(path, number, "PhotometricInterpretation", form.colours)
    return str(path)


def cut(pixels: Pixels, width: int, height: int) -> Iterator[Pixels]:
    """Cut a level into file blocks, its edge repeated beyond it."""
    whole = np.pad(pixels, [(0, -pixels.shape[0] % height), (0, -pixels.shape[1] % width), (0, 0)], mode="edge")
    for top in range(0, len(whole), height):
        for left in range(0, whole.shape[1], width):
            yield np.ascontiguousarray(whole[top : top + height, left : left + width])


def set_tag(path: str | Path, level: int, name: str, value: object, dtype: str | None = None) -> None:
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[level].aspage().tags[name].overwrite(value, dtype=dtype)


def block_at(path: str, level: int, block: int) -> tuple[int, int]:
    """Return where a block begins in the file, and how many bytes it has."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[level]
        return page.dataoffsets[block], page.databytecounts[block]


def overwrite(path: str, offset: int, data: bytes) -> None:
    with Path(path).open("r+b") as file:
        file.seek(offset)
        file.write(data)


def scenery(width: int, height: int, step: int = 1) -> Pixels:
    """Paint smooth colours that tell the place, and speckles, so that no two blocks are alike."""
    y, x = np.mgrid[0 : height * step : step, 0 : width * step : step].astype(np.float32)
    colours = np.stack([40 + x / 4, 220 - y / 4, 128 + 80 * np.sin(x / 17) * np.cos(y / 11)], axis=-1)
    colours[::7, ::5] -= 30
    pixels: Pixels = np.clip(colours, 0, 255).astype(np.uint8)
    return pixels


class CountingReader(DirectReader):
    """Notes which file blocks it decodes.

    Attributes:
        decoded: `(level, column, row)` of each, in order.
    """

    def __init__(self, path: str, levels: Sequence[Level]) -> None:
        super().__init__(path, levels)
        self.decoded: list[tuple[int, int, int]] = []

    def decode_block(self, level: Level, column: int, row: int, out: Pixels) -> None:
        self.decoded.append((level.index, column, row))
        super().decode_block(level, column, row, out)
