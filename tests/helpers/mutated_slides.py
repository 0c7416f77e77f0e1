"""Damaged copies of slides, the same ones for the same seed; each file's name says what was done to it."""

import shutil
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tifffile

from histo.demo.fabricate import write_pyramid
from histo.demo.textures import GLASS, paint
from histo.resample import Pixels

Kind = Callable[[Path, Random], None]
"""Damages a file in its place."""

HEADER = 1024
"""Bytes at the start of a file that count as its header."""
ABSURD = 2**32 - 1


def mutated(sources: Sequence[Path], folder: Path, count: int, seed: int) -> list[Path]:
    """Write damaged copies of slides, every kind of damage as often as another, small slides oftener than large ones.

    Args:
        sources: TIFF and DICOM slides.
        folder: Where to; a DICOM copy has a folder of its own there, since files of one series are one slide.
        count: How many.
        seed: Of all choices.

    Returns:
        The copies, `NNN_KIND_SOURCE.EXTENSION`.
    """
    return [_mutate(sources, folder, number, Random(f"{seed}/{number}")) for number in range(count)]


def _mutate(sources: Sequence[Path], folder: Path, number: int, random: Random) -> Path:
    name, kind = list(KINDS.items())[number % len(KINDS)]
    suited = [source for source in sources if _suits(name, source)]
    source = random.choices(suited, [source.stat().st_size ** -0.125 for source in suited])[0]
    stem = f"{number:03d}_{name}_{source.stem}"
    home = folder / stem if source.suffix == ".dcm" else folder
    home.mkdir(parents=True, exist_ok=True)
    path = home / f"{stem}{EXTENSIONS.get(name, source.suffix)}"
    shutil.copyfile(source, path)
    kind(path, random)
    return path


def _suits(name: str, source: Path) -> bool:
    if name in SVS_KINDS:
        return source.suffix == ".svs" and b"MPP = " in source.read_bytes()
    return source.suffix != ".dcm" or name in BYTE_KINDS


# Bytes of any file


def _truncate(path: Path, random: Random, low: float, high: float) -> None:
    """Keep a length between two numbers: bytes, or if they are fractions, shares of the file; negative from its end."""
    size = path.stat().st_size
    first, last = (round(edge * size) if isinstance(edge, float) else edge % (size + 1) for edge in (low, high))
    with path.open("r+b") as file:
        file.truncate(random.randint(first, min(last, size)))


def _flip(path: Path, random: Random, bits: int, low: float, high: float) -> None:
    """Flip bits between two shares of the file; a share above 1 is a number of bytes."""
    data = bytearray(path.read_bytes())
    first, last = (int(edge if edge > 1 else edge * len(data)) for edge in (low, high))
    for _ in range(bits):
        data[random.randrange(first, min(last, len(data)))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def _overwrite_run(path: Path, random: Random, fill: Callable[[int], bytes]) -> None:
    """Replace a run of up to 32 KiB somewhere behind the header."""
    size = path.stat().st_size
    length = random.randint(1, min(size // 2, 32 * 1024))
    _put(path, random.randrange(min(HEADER, size - length), size - length), fill(length))


def _append(path: Path, random: Random) -> None:
    with path.open("ab") as file:
        file.write(random.randbytes(random.randint(1, 5000)))


def _leave(path: Path, random: Random) -> None:
    """Change nothing; the file has another extension."""


def _put(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


# TIFF


def _page(file: tifffile.TiffFile, random: Random) -> tifffile.TiffPage:
    """Choose level 0 half of the time, else any level."""
    pages = [page for page in (page.aspage() for page in file.pages) if page.is_tiled]
    return pages[0] if random.random() < 0.5 else random.choice(pages)


def _edit(path: Path, random: Random, name: str, values: Sequence[Any], dtype: str | None = None) -> None:
    """Give a tag of one level another value."""
    with tifffile.TiffFile(path, mode="r+") as file:
        tag = _page(file, random).tags.get(name)
        if tag is not None:
            tag.overwrite(random.choice([value for value in values if value != tag.value]), dtype=dtype)


def _flip_directory(path: Path, random: Random, bits: int) -> None:
    with tifffile.TiffFile(path) as file:
        page = _page(file, random)
        low, high = page.offset, page.offset + 2 + 12 * len(page.tags)
    _flip(path, random, bits, low, high)


def _next_directory(path: Path, random: Random, loop: bool) -> None:
    """Have a level's directory followed by itself, or by nothing that is there."""
    with tifffile.TiffFile(path) as file:
        page = _page(file, random)
        place, target = page.offset + 2 + 12 * len(page.tags), page.offset if loop else path.stat().st_size + 77
        order = file.byteorder
    _put(path, place, struct.pack(f"{order}I", target))


def _blocks(path: Path, random: Random) -> list[tuple[int, int]]:
    """List the places and lengths of the compressed blocks of one level, in random order."""
    with tifffile.TiffFile(path) as file:
        page = _page(file, random)
        blocks = [b for b in zip(page.dataoffsets, page.databytecounts, strict=True) if b[1] > 0]
    random.shuffle(blocks)
    return blocks


def _zero_blocks(path: Path, random: Random, share: float, part: float = 1.0) -> None:
    """Zero the last part of at least one block, up to a share of all."""
    blocks = _blocks(path, random)
    for offset, count in blocks[: max(1, int(share * len(blocks)))]:
        kept = int(count * (1 - part))
        _put(path, offset + kept, bytes(count - kept))


def _edit_table(path: Path, random: Random, name: str, change: Callable[[int, Random], int]) -> None:
    """Change one entry of the table of places or lengths of a level's blocks."""
    with tifffile.TiffFile(path, mode="r+") as file:
        tag = _page(file, random).tags[name]
        values = list(tag.value)
        chosen = random.randrange(len(values))
        values[chosen] = change(values[chosen], random) % 2**32
        tag.overwrite(values, dtype="I")


def _swap_places(path: Path, random: Random) -> None:
    """Exchange the places of two blocks, but not their lengths."""
    with tifffile.TiffFile(path, mode="r+") as file:
        tag = _page(file, random).tags["TileOffsets"]
        values = list(tag.value)
        first, last = random.sample(range(len(values)), 2) if len(values) > 1 else (0, 0)
        values[first], values[last] = values[last], values[first]
        tag.overwrite(values, dtype="I")


def _edit_description(path: Path, random: Random, text: bytes) -> None:
    """Replace `MPP = 0.2500` in a description by a text, filled up with blanks to the same length."""
    data = path.read_bytes()
    start = data.index(b"MPP = ")
    length = len(data[start:].split(b"|")[0].split(b"\0")[0])
    path.write_bytes(data[:start] + text[:length].ljust(length) + data[start + length :])


BYTE_KINDS: dict[str, Kind] = {
    "truncate_to_0": partial(_truncate, low=0, high=0),
    "truncate_to_1": partial(_truncate, low=1, high=1),
    "truncate_to_few": partial(_truncate, low=2, high=16),
    "truncate_in_header": partial(_truncate, low=17, high=HEADER),
    "truncate_in_first_half": partial(_truncate, low=0.1, high=0.5),
    "truncate_in_second_half": partial(_truncate, low=0.5, high=0.99),
    "truncate_few_off": partial(_truncate, low=-200, high=-3),
    "truncate_one_off": partial(_truncate, low=-2, high=-2),
    "flip_bit_header": partial(_flip, bits=1, low=0, high=HEADER),
    "flip_bits_header": partial(_flip, bits=20, low=0, high=HEADER),
    "flip_bit_anywhere": partial(_flip, bits=1, low=0, high=1),
    "flip_bits_anywhere": partial(_flip, bits=30, low=0.05, high=1),
    "flip_many_bits_anywhere": partial(_flip, bits=1000, low=0.05, high=0.95),
    "zero_run": lambda path, random: _overwrite_run(path, random, bytes),
    "noise_run": lambda path, random: _overwrite_run(path, random, random.randbytes),
    "append_garbage": _append,
}

TIFF_KINDS: dict[str, Kind] = {
    "flip_bit_directory": partial(_flip_directory, bits=1),
    "flip_bits_directory": partial(_flip_directory, bits=5),
    "loop_next_directory": partial(_next_directory, loop=True),
    "lose_next_directory": partial(_next_directory, loop=False),
    "zero_block": partial(_zero_blocks, share=0),
    "zero_half_block": partial(_zero_blocks, share=0, part=0.5),
    "zero_many_blocks": partial(_zero_blocks, share=0.3),
    "zero_half_of_many_blocks": partial(_zero_blocks, share=0.2, part=0.5),
    "length_0": partial(_edit_table, name="TileByteCounts", change=lambda *_: 0),
    "length_1": partial(_edit_table, name="TileByteCounts", change=lambda *_: 1),
    "length_short": partial(_edit_table, name="TileByteCounts", change=lambda old, _: old // 2),
    "length_absurd": partial(_edit_table, name="TileByteCounts", change=lambda *_: ABSURD),
    "offset_0": partial(_edit_table, name="TileOffsets", change=lambda *_: 0),
    "offset_shifted": partial(
        _edit_table, name="TileOffsets", change=lambda old, random: old + random.choice((-9, -1, 1, 9))
    ),
    "offset_beyond_end": partial(
        _edit_table, name="TileOffsets", change=lambda _, random: 2**31 + random.randint(0, 9)
    ),
    "offsets_swapped": _swap_places,
    "width_0": partial(_edit, name="ImageWidth", values=[0], dtype="I"),
    "width_wrong": partial(_edit, name="ImageWidth", values=[1, 255, 3000, 20_000], dtype="I"),
    "width_absurd": partial(_edit, name="ImageWidth", values=[2**31 - 1, 2**31, ABSURD], dtype="I"),
    "height_0": partial(_edit, name="ImageLength", values=[0], dtype="I"),
    "height_wrong": partial(_edit, name="ImageLength", values=[1, 255, 3000, 20_000], dtype="I"),
    "height_absurd": partial(_edit, name="ImageLength", values=[2**31 - 1, 2**31, ABSURD], dtype="I"),
    "block_width": partial(_edit, name="TileWidth", values=[0, 1, 17, 128, 512, 2**20, 2**31, ABSURD], dtype="I"),
    "block_height": partial(_edit, name="TileLength", values=[0, 1, 17, 128, 512, 2**20, 2**31, ABSURD], dtype="I"),
    "block_huge": partial(_edit, name="TileWidth", values=[2**30], dtype="I"),
    "compression": partial(_edit, name="Compression", values=[0, 1, 5, 6, 7, 8, 33003, 33005, 34712, 65535], dtype="H"),
    "photometric": partial(_edit, name="PhotometricInterpretation", values=[0, 1, 3, 5, 6, 8, 32803, 65535], dtype="H"),
    "samples": partial(_edit, name="SamplesPerPixel", values=[0, 1, 2, 4, 255, 65535], dtype="H"),
    "bits": partial(_edit, name="BitsPerSample", values=[(0, 0, 0), (1, 1, 1), (16, 16, 16), (8, 8, 99)], dtype="H"),
    "planar": partial(_edit, name="PlanarConfiguration", values=[0, 2, 65535], dtype="H"),
    "resolution_unit": partial(_edit, name="ResolutionUnit", values=[0, 1, 2, 65535], dtype="H"),
    "x_resolution": partial(_edit, name="XResolution", values=[(0, 1), (0, 0), (1, 0), (ABSURD, 1), (1, ABSURD)]),
    "y_resolution": partial(_edit, name="YResolution", values=[(0, 1), (0, 0), (1, 0), (ABSURD, 1), (1, ABSURD)]),
}

SVS_KINDS: dict[str, Kind] = {
    "mpp_0": partial(_edit_description, text=b"MPP = 0"),
    "mpp_negative": partial(_edit_description, text=b"MPP = -0.25"),
    "mpp_nan": partial(_edit_description, text=b"MPP = nan"),
    "mpp_missing": partial(_edit_description, text=b"NPP = 0.25"),
    "mpp_absurd": partial(_edit_description, text=b"MPP = 1e9"),
    "mpp_no_number": partial(_edit_description, text=b"MPP = a,b"),
}

EXTENSIONS = {
    f"named_{extension}": f".{extension}"
    for extension in "svs tiff ndpi mrxs vms vmu scn bif svslide czi dcm".split()  # noqa: SIM905 -- reads as a list
}
"""The kinds that change a file's extension alone, and to what."""

KINDS: dict[str, Kind] = BYTE_KINDS | TIFF_KINDS | SVS_KINDS | dict.fromkeys(EXTENSIONS, _leave)


# What is damaged


def fabricated(folder: Path) -> list[Path]:
    """Write small slides of tissue beside glass: JPEG and without loss, of one level and of several, and an SVS."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.tif" for name in ("jpeg_levels", "jpeg_level", "lossless_levels", "lossless_level")]
    image = tissue(1536, 1344)
    write_pyramid(paths[0], image, mpp=0.25)
    write_pyramid(paths[1], image[:1100, :900], mpp=0.25, downsamples=(1,))
    write_pyramid(paths[2], image[:800, :1000], mpp=0.25, downsamples=(1, 4), quality=None)
    write_pyramid(paths[3], image[:600, :700], mpp=0.25, downsamples=(1,), quality=None)
    return [*paths, write_svs(folder / "aperio.svs", image, mpp=0.25)]


def tissue(width: int, height: int) -> Pixels:
    """Paint tissue that leaves a margin of glass."""
    image = np.full((height, width, 3), GLASS, np.uint8)
    inside = np.s_[height // 8 :, : -width // 8]
    rows, columns = image[inside].shape[:2]
    image[inside] = paint("TUM", rows, columns, np.random.default_rng(0))
    return image


def write_svs(path: Path, image: Pixels, mpp: float) -> Path:
    """Write an Aperio slide of two levels, whose description holds its resolution."""
    with tifffile.TiffWriter(path) as file:
        for step in (1, 4):
            file.write(
                np.ascontiguousarray(image[::step, ::step]),
                description=f"Aperio Image Library v11.2.1\r\n{image.shape[1]}x{image.shape[0]}|MPP = {mpp:.8f}",
                tile=(240, 240),
                photometric="rgb",
                compression="jpeg",
                metadata=None,
            )
    return path
