"""Open a slide: its metadata, and the reader of its pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import openslide

from histo.errors import Cause, InputError, SlideError
from histo.slides.mpp import GivenMpp, find_mpp, positive
from histo.slides.readers.base import Level, Reader
from histo.slides.readers.compare import compare
from histo.slides.readers.openslide import OpenSlideReader
from histo.slides.readers.tiff import DirectReader
from histo.slides.readers.tiff_index import UnsuitedError, find_empty, spread_empty
from histo.slides.spec import ReaderChoice

__all__ = ["Level", "OpenSlideReader", "Reader", "ReaderChoice", "Slide", "open_reader", "open_slide"]


@dataclass(frozen=True)
class Slide:
    """What the metadata of a slide say.

    Attributes:
        path: The file that OpenSlide opens.
        vendor: Format, as OpenSlide names it.
        levels: The pyramid, finest first.
        mpp_x: µm per level-0 pixel along x.
        mpp_y: µm per level-0 pixel along y.
        mpp_source: `metadata`, `list`, `if_missing` or `override`.
        bounds: The scanned part `(x, y, width, height)` in level-0 pixels, if the file names one.
        objective_power: Nominal magnification, if the file names one.
        quickhash: OpenSlide's quickhash-1, if there is one.
    """

    path: str
    vendor: str
    levels: tuple[Level, ...]
    mpp_x: float
    mpp_y: float
    mpp_source: str
    bounds: tuple[int, int, int, int] | None
    objective_power: float | None
    quickhash: str | None

    @property
    def width(self) -> int:
        """Width in level-0 pixels."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """Height in level-0 pixels."""
        return self.levels[0].height


def open_slide(
    path: str,
    mpp_if_missing: float | None = None,
    reader: ReaderChoice = "openslide",
    mpp_override: float | None = None,
    mpp_listed: float | None = None,
) -> tuple[Slide, Reader]:
    """Open a slide and read its metadata.

    Args:
        path: The slide's file, the first one of a DICOM series.
        mpp_if_missing: µm per level-0 pixel for a slide that names none.
        reader: What is to decode its pixels.
        mpp_override: µm per level-0 pixel, whatever the slide names.
        mpp_listed: µm per level-0 pixel that a list of slides gives for this one.

    Raises:
        SlideError: If it is not a slide, its resolution is unknown or not plausible, it contradicts itself, or `direct`
            is asked for and cannot be had.
    """
    reference = OpenSlideReader(path)
    try:
        slide = _describe(path, reference.handle, GivenMpp(mpp_if_missing, mpp_override, mpp_listed))
        if reader == "openslide":
            reference.direct = _witness(slide, reference)
            return slide, reference
        direct = _compared(slide, reference)
    except UnsuitedError as error:
        if reader == "auto":
            return slide, reference
        reference.close()
        raise SlideError(
            Cause.UNREADABLE, f"{path}: --reader direct cannot read it: {error}; use --reader auto"
        ) from error
    except InputError:
        reference.close()
        raise
    reference.close()
    return slide, direct


def open_reader(slide: Slide, name: str) -> Reader:
    """Open a slide again with the reader that was chosen for it, whose `name` is given.

    Raises:
        SlideError: If the file is not any more what the slide describes.
    """
    if name == OpenSlideReader.name:
        return OpenSlideReader(slide.path)
    if name != DirectReader.name:
        raise ValueError(f"reader {name!r}: neither {OpenSlideReader.name} nor {DirectReader.name}")
    try:
        return DirectReader(slide.path, slide.levels)
    except UnsuitedError as error:
        raise SlideError(
            Cause.CHANGED,
            f"{slide.path}: the file changed while it was read ({error}); label again when it is complete",
        ) from error


def _compared(slide: Slide, reference: OpenSlideReader) -> DirectReader:
    """Open a slide directly, and compare it with the reference; raise `UnsuitedError` where that fails."""
    direct = DirectReader(slide.path, slide.levels)
    try:
        compare(direct, reference, spread_empty(slide.levels) if reference.fills_from_finer_levels else slide.levels)
    except (UnsuitedError, InputError):
        direct.close()
        raise
    return direct


def _witness(slide: Slide, reference: OpenSlideReader) -> DirectReader | None:
    """Open what shows the levels as they are stored, if OpenSlide does not and empty blocks are judged by them."""
    if not reference.fills_from_finer_levels or not any(level.empty for level in slide.levels):
        return None
    try:
        return _compared(slide, reference)
    except UnsuitedError:
        return None
    except InputError as error:
        if error.cause is Cause.UNREADABLE:  # a contradiction, which OpenSlide reads if it is asked to
            return None
        raise


def _describe(path: str, handle: openslide.OpenSlide, given: GivenMpp) -> Slide:
    properties = handle.properties
    mpp = find_mpp(path, properties, given)
    levels = _levels(handle.level_dimensions, handle.level_downsamples)
    return Slide(
        path=path,
        vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
        levels=find_empty(path, [_with_blocks(level, properties) for level in levels]),
        mpp_x=mpp.x,
        mpp_y=mpp.y,
        mpp_source=mpp.source,
        bounds=_bounds(properties),
        objective_power=positive(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
        quickhash=properties.get(openslide.PROPERTY_NAME_QUICKHASH1),
    )


def _levels(sizes: tuple[tuple[int, int], ...], downsamples: tuple[float, ...]) -> tuple[Level, ...]:
    """Describe the pyramid; a downsample that rounding of the sizes has blurred is put back to its integer."""
    width, height = sizes[0]
    levels = []
    for index, ((w, h), downsample) in enumerate(zip(sizes, downsamples, strict=True)):
        nearest = max(1, round(downsample))
        blurred = abs(width / nearest - w) < 1 and abs(height / nearest - h) < 1
        levels.append(Level(index, w, h, float(nearest) if blurred else downsample, exact=downsample == nearest))
    return tuple(levels)


def _with_blocks(level: Level, properties: Mapping[str, str]) -> Level:
    """Add the size of the level's file blocks, if it is stored in such."""
    width, height = (
        positive(properties.get(f"openslide.level[{level.index}].tile-{name}")) for name in ("width", "height")
    )
    return replace(level, block_width=int(width or 1), block_height=int(height or 1))


def _bounds(properties: Mapping[str, str]) -> tuple[int, int, int, int] | None:
    names = (
        openslide.PROPERTY_NAME_BOUNDS_X,
        openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH,
        openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
    )
    try:
        x, y, width, height = (int(properties[name]) for name in names)
    except (KeyError, ValueError):
        return None
    return x, y, width, height
