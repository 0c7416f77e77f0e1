"""Choose the level to read, and the number of pixels to average."""

from dataclasses import dataclass

from histo.errors import Cause, SlideError
from histo.slides.slide import Level, Slide


@dataclass(frozen=True)
class Sampling:
    """How the pixels of a slide become pixels of the target resolution, per axis.

    Attributes:
        level: Index of the level that is read.
        ratio_x: Pixels of that level per target pixel.
        ratio_y: Likewise along y.
        scale_x: Level-0 pixels per target pixel.
        scale_y: Likewise along y.
        effective_mpp_x: µm per target pixel that results.
        effective_mpp_y: Likewise along y.
    """

    level: int
    ratio_x: float
    ratio_y: float
    scale_x: float
    scale_y: float
    effective_mpp_x: float
    effective_mpp_y: float

    @property
    def effective_mpp(self) -> float:
        """Geometric mean of both axes, so that its square times a count of pixels is an area in µm²."""
        return float((self.effective_mpp_x * self.effective_mpp_y) ** 0.5)


def choose_sampling(slide: Slide, mpp: float, tolerance: float = 0.02, allow_upsample: bool = False) -> Sampling:
    """Choose the coarsest exact level that is not coarser than the target, and the ratio of its pixels to the target's.

    Args:
        slide: The open slide's description.
        mpp: Requested resolution, µm per target pixel.
        tolerance: Relative deviation from an integer ratio within which whole blocks are averaged and the resolution
            that this gives is recorded; beyond it the request is met exactly.
        allow_upsample: Whether a slide coarser than the target may be enlarged.

    Raises:
        SlideError: If even level 0 is coarser than the target, and `allow_upsample` is false.
    """

    def ratios(level: Level) -> tuple[float, float]:
        return (
            snap_ratio(mpp / (slide.mpp_x * level.downsample), tolerance),
            snap_ratio(mpp / (slide.mpp_y * level.downsample), tolerance),
        )

    usable = [level for level in slide.levels if level.exact and min(ratios(level)) >= 1]
    if not usable and not allow_upsample:
        raise SlideError(
            Cause.TOO_COARSE,
            f"{slide.path}: scanned at {slide.mpp_x:g} x {slide.mpp_y:g} µm/px, coarser than the {mpp:g} µm/px that "
            "tiles are to have; rescan it, or accept enlarged pixels with --tiling.allow-upsample",
        )
    level = max(usable, key=lambda level: level.downsample, default=slide.levels[0])
    ratio_x, ratio_y = ratios(level)
    return Sampling(
        level=level.index,
        ratio_x=ratio_x,
        ratio_y=ratio_y,
        scale_x=ratio_x * level.downsample,
        scale_y=ratio_y * level.downsample,
        effective_mpp_x=ratio_x * level.downsample * slide.mpp_x,
        effective_mpp_y=ratio_y * level.downsample * slide.mpp_y,
    )


def snap_ratio(ratio: float, tolerance: float) -> float:
    """Return the nearest integer if the ratio deviates from it by no more than `tolerance`, else the ratio.

    Examples:
        >>> snap_ratio(0.5 / 0.2498, tolerance=0.02)
        2.0
        >>> snap_ratio(1.6, tolerance=0.02)
        1.6
    """
    nearest = max(1, round(ratio))
    return float(nearest) if abs(ratio - nearest) <= tolerance * nearest else ratio
