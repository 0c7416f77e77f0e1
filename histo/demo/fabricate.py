"""Fabricate tiles of nine classes, and slides with a known class map.

Nothing here is real tissue: all of it is drawn from a seed. What a model learns from these tiles holds for these slides
only. All lengths are level-0 pixels of 0.25 µm unless their name says otherwise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from histo.demo.textures import CLASSES, GLASS, Canvas, paint
from histo.resample import Pixels, Window, resample, resize

__all__ = [
    "CLASSES",
    "Area",
    "Layout",
    "SlideTruth",
    "fabricate_slide",
    "fabricate_slides",
    "fabricate_tiles",
    "paint",
    "write_pyramid",
]

Classes = npt.NDArray[np.int16]

MPP = 0.25
"""µm per pixel at which everything is painted."""
TILE_PX = 224
"""Edge of a tile, in pixels of 0.5 µm."""
BLOCK = 2
"""Tiles per edge of the patch that they are cut from."""
QUALITY = 90
"""Quality of JPEG compression, to 100."""
CELL_PX = 32
"""Edge of a cell of the map of classes."""
UNJUDGED = -1
INK = (0.20, 0.42, 0.85)
"""Share of the light (R, G, B) that blue ink passes."""
INK_PX = 420
"""Width of a stroke of the pen; a real one is wider still."""


@dataclass(frozen=True)
class Area:
    """A piece of tissue of one class; its outline strays from this rectangle."""

    name: str
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Layout:
    """A slide to be fabricated. A later area covers an earlier one.

    Attributes:
        file: Name of its file.
        mpp: µm per pixel that the file names, if any.
        areas: Its tissue, on glass.
        pen: Where the pen moves, from `(x, y)` to `(x, y)`, if it does.
        width: Its width, a multiple of `CELL_PX`.
        height: Likewise.
    """

    file: str
    mpp: float | None
    areas: tuple[Area, ...]
    pen: tuple[tuple[int, int], tuple[int, int]] | None = None
    width: int = 5376
    height: int = 4480

    def __post_init__(self) -> None:
        if self.width % CELL_PX or self.height % CELL_PX:
            raise ValueError(f"{self.file}: {self.width} x {self.height} px are not multiples of {CELL_PX}")


LAYOUTS = (
    Layout(
        "demo_1.tif",
        MPP,
        (
            Area("STR", 2250, 300, 5000, 2350),
            Area("MUS", 1900, 2150, 4150, 4150),
            Area("LYM", 350, 2150, 2150, 4100),
            Area("TUM", 350, 300, 2500, 2350),
        ),
    ),
    Layout(
        "demo_2.tif",
        MPP,
        (
            Area("ADI", 350, 350, 2500, 2300),
            Area("MUC", 3000, 2300, 5000, 4150),
            Area("DEB", 400, 2150, 2200, 4150),
            Area("NORM", 2300, 400, 4300, 2450),
        ),
        pen=((4350, 500), (4900, 2000)),
    ),
    Layout(
        "demo_3_no_mpp.tif",
        None,
        (
            Area("TUM", 350, 300, 2100, 2150),
            Area("LYM", 1950, 300, 3550, 2150),
            Area("DEB", 3450, 350, 5050, 2150),
            Area("ADI", 400, 2400, 2050, 4200),
            Area("NORM", 3400, 2400, 5050, 4150),
            Area("MUC", 1950, 2400, 3550, 4150),
        ),
    ),
)


@dataclass(frozen=True)
class SlideTruth:
    """What is where on a fabricated slide.

    Attributes:
        path: The slide's file.
        cell_px: Level-0 pixels per cell of the map.
        classes: `(rows, columns)`, an index into `CLASSES` for each cell, and -1 where a cell holds ink or several
            classes; it covers the slide exactly.
    """

    path: Path
    cell_px: int
    classes: Classes

    def pure_class(self, x: int, y: int, width: int, height: int) -> str | None:
        """Name the class of a rectangle of level-0 pixels, if it lies in the slide and wholly in one class.

        Examples:
            >>> truth = SlideTruth(Path("s.tif"), 32, np.array([[8, 8, 1]], np.int16))
            >>> truth.pure_class(0, 0, 64, 32), truth.pure_class(0, 0, 65, 32), truth.pure_class(70, 0, 64, 32)
            ('TUM', None, None)
        """
        rows, columns = self.classes.shape
        if x < 0 or y < 0 or x + width > columns * self.cell_px or y + height > rows * self.cell_px:
            return None
        right, bottom = -(-(x + width) // self.cell_px), -(-(y + height) // self.cell_px)
        found = np.unique(self.classes[y // self.cell_px : bottom, x // self.cell_px : right])
        return CLASSES[found[0]] if len(found) == 1 and found[0] != UNJUDGED else None


def fabricate_tiles(folder: Path, per_class: int, seed: int = 0) -> None:
    """Write `per_class` tiles of each class as `folder/CLASS/CLASS_0000.png`, of 224 px at 0.5 µm per pixel."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for first in range(0, per_class, BLOCK**2):
            tiles = _tiles(name, np.random.default_rng((seed, label, first)))
            for number, tile in enumerate(tiles[: per_class - first], start=first):
                Image.fromarray(tile).save(folder / name / f"{name}_{number:04d}.png", compress_level=1)


def _tiles(name: str, rng: np.random.Generator) -> list[Pixels]:
    """Cut tiles from one patch, each turned and mirrored by chance, and with a stain of its own."""
    edge = round(TILE_PX * 0.5 / MPP)
    patch = paint(name, BLOCK * edge, BLOCK * edge, rng, MPP)
    corners = product(range(0, BLOCK * edge, edge), repeat=2)
    crops = [
        np.rot90(patch[y : y + edge, x : x + edge], int(rng.integers(4)))[:: rng.choice((-1, 1))] for y, x in corners
    ]
    return [resize(_compress(_restain(crop, rng)), TILE_PX) for crop in crops]


def _compress(image: Pixels) -> Pixels:
    """Lose what a slide's JPEG compression loses."""
    coded = imagecodecs.jpeg8_encode(np.ascontiguousarray(image), level=QUALITY, subsampling=(2, 2))
    decoded: Pixels = imagecodecs.jpeg8_decode(coded)
    return decoded


def _restain(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Vary how strongly all is stained, how strongly in each channel, and how bright the lamp is; mildly."""
    strength = rng.uniform(0.92, 1.08) * rng.uniform(0.97, 1.03, 3)
    lamp = rng.uniform(0.985, 1.01)
    passed = np.arange(256)[:, None] / np.array(GLASS)
    table = np.clip(lamp * np.array(GLASS) * passed**strength + 0.5, 0, 255).astype(np.uint8)
    return np.stack([table[:, channel][image[..., channel]] for channel in range(3)], axis=-1)


def fabricate_slides(folder: Path, seed: int = 0) -> tuple[SlideTruth, ...]:
    """Write three slides of about 1.3 x 1.1 mm; the last names no resolution, the second bears a stroke of a pen."""
    return tuple(
        fabricate_slide(folder, layout, np.random.default_rng((seed, len(CLASSES), number)))
        for number, layout in enumerate(LAYOUTS)
    )


def fabricate_slide(folder: Path, layout: Layout, rng: np.random.Generator) -> SlideTruth:
    """Write one slide to `folder`, and return what is where on it."""
    image = np.tile(paint("BACK", layout.height // 4, layout.width // 4, rng, MPP), (4, 4, 1))
    labels = np.full(image.shape[:2], CLASSES.index("BACK"), np.int16)
    for area in layout.areas:
        _add_area(image, labels, area, rng)
    image = _restain(image, rng)
    if layout.pen is not None:
        _add_ink(image, labels, *layout.pen)
    folder.mkdir(parents=True, exist_ok=True)
    write_pyramid(folder / layout.file, image, layout.mpp)
    return SlideTruth(folder / layout.file, CELL_PX, _summarise(labels))


def _add_area(image: Pixels, labels: Classes, area: Area, rng: np.random.Generator) -> None:
    place = np.s_[area.top : area.bottom, area.left : area.right]
    height, width = area.bottom - area.top, area.right - area.left
    inside = _outline(height, width, rng)
    np.copyto(image[place], paint(area.name, height, width, rng, MPP), where=inside[..., None])
    np.copyto(labels[place], np.int16(CLASSES.index(area.name)), where=inside)


def _outline(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return a rounded, frayed rectangle within `(height, width)`: a superellipse of chance radius."""
    down, across = (np.linspace(-1, 1, length, dtype=np.float32) ** 8 for length in (height, width))
    fray = Canvas((height, width), 1 / MPP, rng).noise(60)
    inside: npt.NDArray[np.bool_] = down[:, None] + across < 0.8 + 0.15 * np.clip(fray, -2.5, 1.3)
    return inside


def _add_ink(image: Pixels, labels: Classes, start: tuple[int, int], stop: tuple[int, int]) -> None:
    """Draw a wavy stroke over whatever is there; it and the 16 px beside it are not to be judged."""
    length = np.hypot(stop[0] - start[0], stop[1] - start[1])
    cos, sin = (np.subtract(stop, start) / length).astype(np.float32)
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    right, down = (x - start[0]).astype(np.float32), (y - start[1]).astype(np.float32)
    along, across = right * cos + down * sin, down * cos - right * sin
    beyond = np.maximum(abs(along - np.float32(length / 2)) - np.float32(length / 2), 0)
    aside = np.hypot(across - 70 * np.sin(along / 250), beyond)
    stroke = aside < INK_PX / 2
    image[stroke] = (image[stroke] * np.array(INK) + 0.5).astype(np.uint8)
    labels[aside < INK_PX / 2 + 16] = UNJUDGED


def _summarise(labels: Classes) -> Classes:
    """Return the class of each cell, or -1 where its pixels differ."""
    rows, columns = (length // CELL_PX for length in labels.shape)
    cells = labels.reshape(rows, CELL_PX, columns, CELL_PX)
    least, most = cells.min(axis=(1, 3)), cells.max(axis=(1, 3))
    return np.where(least == most, least, np.int16(UNJUDGED))


def write_pyramid(
    path: Path,
    image: Pixels,
    mpp: float | None,
    downsamples: Sequence[int] = (1, 4, 16),
    quality: int | None = QUALITY,
    tile_px: int = 256,
) -> None:
    """Write a tiled, pyramidal TIFF that OpenSlide opens; each level is the box average of `image`.

    Args:
        path: The file.
        image: `(H, W, 3)`, the pixels of level 0.
        mpp: µm per level-0 pixel; None writes no resolution.
        downsamples: Level-0 pixels per pixel of each level; what does not fill a pixel at the far edges is left out.
        quality: Quality of the JPEG compression, to 100; None compresses without loss.
        tile_px: Edge of the file's own tiles, a multiple of 16.
    """
    height, width = image.shape[:2]
    with tifffile.TiffWriter(path) as file:
        for number, step in enumerate(downsamples):
            columns, rows = Window(0, width // step, step), Window(0, height // step, step)
            level = resample(image[: rows.count * step, : columns.count * step], columns, rows)
            file.write(
                _cut(level, tile_px),
                shape=level.shape,
                dtype=np.uint8,
                photometric="rgb",
                subfiletype=min(number, 1),
                tile=(tile_px, tile_px),
                compression="deflate" if quality is None else "jpeg",
                compressionargs=None if quality is None else {"level": quality},
                resolution=None if mpp is None else (1e4 / (mpp * step), 1e4 / (mpp * step)),
                resolutionunit="none" if mpp is None else "centimeter",
                metadata=None,
            )


def _cut(level: Pixels, tile_px: int) -> Iterator[Pixels]:
    """Cut a level into the file's own tiles; its edge is repeated, so that JPEG does not bleed black into it."""
    height, width = level.shape[:2]
    whole = np.pad(level, [(0, -height % tile_px), (0, -width % tile_px), (0, 0)], mode="edge")
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            yield whole[top : top + tile_px, left : left + tile_px]
