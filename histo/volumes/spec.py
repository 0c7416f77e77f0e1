"""Settings of the preparation of studies. Imports nothing heavy."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from histo.spec.base import Spec

Choice = Literal["even", "outer-middle"]
Fill = Literal["repeat", "pad"]
Rule = Literal["percentile", "zscore", "hounsfield"]
PatientIs = Literal["files", "folder"]


class PreparationSpec(Spec):
    """How a study becomes a volume; stored with every volume, and with every model that is trained on them."""

    series: list[Annotated[str, Field(min_length=1)]] = Field(default=[])
    """Names of the series in the order of the channels, case-insensitive, or globs such as *flair*; none: all series of
    the study in the order of their names."""

    series_count: int = Field(default=3, ge=1, le=1000)
    """Number of series of a study, where --preparation.series names none."""

    slices: int = Field(default=20, ge=1, le=10_000)
    """Slices of a volume, inferior to superior."""

    size_px: int = Field(default=512, ge=8, le=2**14)
    """Edge of its slices, which are square (px)."""

    choice: Choice = "even"
    """Slices that are taken: evenly over the extent; or outer-middle, a quarter from each end and the rest from the
    middle."""

    fill: Fill = "repeat"
    """For a series of fewer slices than asked for: repeat some of them, or pad with black ones."""

    intensity: Rule = "percentile"
    """Values that become 0 to 255: between two percentiles of a series' foreground, a number of standard deviations
    around its mean, or a window of Hounsfield units."""

    percentile_low: float = Field(default=0.5, ge=0, le=100)
    """Percentile of the foreground that becomes 0."""

    percentile_high: float = Field(default=99.5, ge=0, le=100)
    """Percentile of the foreground that becomes 255."""

    zscore_span: float = Field(default=4.0, gt=0)
    """Standard deviations below and above the mean of the foreground that become 0 and 255."""

    hounsfield_centre: float = 40.0
    """Centre of the window (Hounsfield units)."""

    hounsfield_width: float = Field(default=400.0, gt=0)
    """Width of the window (Hounsfield units)."""

    spacing_tolerance: float = Field(default=0.05, ge=0, lt=0.5)
    """Greatest deviation of a gap between DICOM slices from their median gap, as a share of it."""

    allow_no_orientation: bool = False
    """Take the axes of a NIfTI file without orientation for left to right, posterior to anterior, inferior to
    superior."""

    @model_validator(mode="after")
    def _check(self) -> "PreparationSpec":
        if self.percentile_low >= self.percentile_high:
            raise ValueError(
                f"percentile_low {self.percentile_low} is not below percentile_high {self.percentile_high}"
            )
        if self.choice == "outer-middle" and self.slices < 4:
            raise ValueError(f"choice outer-middle needs 4 slices or more, not {self.slices}")
        return self

    @property
    def channels(self) -> int:
        """Series of a volume."""
        return len(self.series) or self.series_count
