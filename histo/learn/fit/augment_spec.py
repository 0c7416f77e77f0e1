"""Settings of augmentation, and their presets. Imports nothing heavy."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from histo.errors import UsageError
from histo.spec.base import Spec

if TYPE_CHECKING:
    from histo.learn.array_layout import Layout

BEST_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Settings:
    """What is changed, and how much; see `AugmentSpec` for the fields. Nothing, as it is made without arguments."""

    horizontal_flip: bool = False
    vertical_flip: bool = False
    quarter_turns: bool = False
    rotation_turns: float = 0.0
    zoom: float = 0.0
    stain_scale: float = 0.0
    stain_shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue_turns: float = 0.0
    blur_probability: float = 0.0
    blur_sigma_px: float = 1.0
    jpeg_probability: float = 0.0
    jpeg_quality: int = 40
    noise: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether pixels change their places."""
        flips = self.horizontal_flip or self.vertical_flip
        return flips or self.quarter_turns or self.rotation_turns > 0 or self.zoom > 0

    @property
    def stains(self) -> bool:
        """Whether concentrations of stain change."""
        return self.stain_scale > 0 or self.stain_shift > 0

    @property
    def colours(self) -> bool:
        """Whether brightness, contrast, saturation or hue change."""
        return max(self.brightness, self.contrast, self.saturation, self.hue_turns) > 0

    @property
    def changes_nothing(self) -> bool:
        """Whether every sample stays as it is."""
        sometimes = self.blur_probability > 0 or self.jpeg_probability > 0
        return not (self.moves or self.stains or self.colours or sometimes or self.noise > 0)

    @property
    def for_colours(self) -> list[str]:
        """What is on of that which needs red, green and blue, by the names of the settings."""
        names = ("stain_scale", "stain_shift", "brightness", "contrast", "saturation", "hue_turns", "jpeg_probability")
        return [name for name in names if getattr(self, name) > 0]


_GEOMETRIC = Settings(horizontal_flip=True, vertical_flip=True, quarter_turns=True, rotation_turns=0.125, zoom=0.1)
PRESETS = {
    "none": Settings(),
    "original": Settings(horizontal_flip=True, rotation_turns=0.2),
    "geometric": _GEOMETRIC,
    "stain": replace(
        _GEOMETRIC,
        stain_scale=0.05,
        stain_shift=0.03,
        brightness=0.1,
        contrast=0.1,
        saturation=0.1,
        hue_turns=0.01,
        blur_probability=0.25,
        jpeg_probability=0.5,
    ),
    "volume": Settings(horizontal_flip=True, vertical_flip=True, rotation_turns=0.03, zoom=0.05, noise=0.03),
}


class AugmentSpec(Spec):
    """Random changes of training images; validation images are never changed.

    A field that is left out is as the preset has it. Amounts are drawn uniformly, to either side.
    """

    preset: Literal["none", "original", "geometric", "stain", "volume"] = "geometric"
    """`none`; `original`: horizontal flip, rotation up to 0.2 turns; `geometric`: flips, quarter turns, rotation, zoom;
    `stain`: these, and stain, colour, blur and JPEG; `volume`: flips, small rotation and zoom, noise."""
    horizontal_flip: bool | None = None
    """Mirror left and right, half of the time."""
    vertical_flip: bool | None = None
    """Mirror top and bottom, half of the time."""
    quarter_turns: bool | None = None
    """Turn by 0, 1, 2 or 3 quarters, each as often; for square images."""
    rotation_turns: float | None = Field(default=None, ge=0, le=0.5)
    """Greatest rotation (turns; 0.2 is 72 degrees). What turns in from outside is mirrored."""
    zoom: float | None = Field(default=None, ge=0, le=1)
    """Greatest change of size (share; 0.1 is from 1/1.1 to 1.1, as often smaller as larger)."""
    stain_scale: float | None = Field(default=None, ge=0, lt=1)
    """Greatest change of the concentration of each stain (share of it)."""
    stain_shift: float | None = Field(default=None, ge=0, le=1)
    """Greatest amount of each stain that is added to or taken from the whole tile (absorbance, nats)."""
    brightness: float | None = Field(default=None, ge=0, lt=1)
    """Greatest change of brightness (share of the grey level)."""
    contrast: float | None = Field(default=None, ge=0, lt=1)
    """Greatest change of the distance from the tile's mean grey level (share of it)."""
    saturation: float | None = Field(default=None, ge=0, le=1)
    """Greatest change of colourfulness (share of it)."""
    hue_turns: float | None = Field(default=None, ge=0, le=0.5)
    """Greatest rotation of the hue (turns of the colour circle)."""
    blur_probability: float | None = Field(default=None, ge=0, le=1)
    """Share of samples that are blurred."""
    blur_sigma_px: float | None = Field(default=None, gt=0, le=10)
    """Greatest standard deviation of the Gaussian blur (px)."""
    jpeg_probability: float | None = Field(default=None, ge=0, le=1)
    """Share of samples that are compressed as JPEG."""
    jpeg_quality: int | None = Field(default=None, ge=1, le=BEST_JPEG_QUALITY)
    """Lowest JPEG quality (1 to 95); it is drawn from there to 95."""
    noise: float | None = Field(default=None, ge=0, le=1)
    """Greatest standard deviation of normal noise (share of the range from black to white)."""

    def settings(self) -> Settings:
        """Return what the preset and the other fields come to."""
        return replace(PRESETS[self.preset], **self.model_dump(exclude={"preset"}, exclude_none=True))


def check_augmentation(spec: AugmentSpec, layout: "Layout") -> None:
    """Make sure that images can be changed as is asked for.

    Raises:
        UsageError: If they have no colours, and those are to change.
    """
    asked = spec.settings().for_colours
    if asked and len(layout.of_channels((0.0,) * 3)) != 3:
        raise UsageError(
            f"--augment.{asked[0].replace('_', '-')}: changes colours, which {layout} have not; give --augment.preset "
            "volume, or none"
        )
