"""Resolution of level 0: given for all slides, of the file, or filled in.

OpenSlide reads what scanners write down, of a plain TIFF the resolution tags. Where the description is OME-XML, its
physical size of a pixel counts before them: programs that write it may leave the tags at 72 dpi.
"""

import html
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import openslide

from histo.errors import Cause, SlideError

PLAUSIBLE_MPP = (0.05, 20.0)
_UM_PER_UNIT = {
    **{"pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6},
    **{"thou": 25.4, "li": 25_400 / 12, "in": 25_400.0, "ft": 304_800.0},
}
"""Units of length of OME-XML (schema 2016-06, UnitsLength) that a pixel may be measured in; µm where it names none."""
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\s([^>]*)>")
_ATTRIBUTE = re.compile(r"""\b(PhysicalSize[XY](?:Unit)?)\s*=\s*["']([^"']*)["']""")


class GivenMpp(NamedTuple):
    """What is given of the resolution of level 0, µm per pixel.

    Attributes:
        if_missing: For slides that name none.
        override: For every slide, whatever it says.
        listed: For this slide, by a list of slides; it wins over what the slide says.
    """

    if_missing: float | None = None
    override: float | None = None
    listed: float | None = None


class Resolution(NamedTuple):
    """What is known of the resolution of level 0, µm per pixel.

    Attributes:
        x: Along x.
        y: Along y.
        source: `metadata`, `list`, `if_missing` or `override`.
    """

    x: float
    y: float
    source: str


def find_mpp(path: str, properties: Mapping[str, str], given: GivenMpp) -> Resolution:
    """Return the resolution of a slide.

    Args:
        path: The slide's.
        properties: What OpenSlide says of it.
        given: What the user says.

    Raises:
        SlideError: If it is not known, or not plausible.
    """
    found = _known(properties, given)
    if found is None:
        raise SlideError(
            Cause.NO_MPP,
            f"{path}: no resolution in the metadata; give one with --mpp-if-missing (µm/px at level 0), or "
            "in a column mpp of a list of slides",
        )
    low, high = PLAUSIBLE_MPP
    if not (low <= found.x <= high and low <= found.y <= high):
        raise SlideError(
            Cause.IMPLAUSIBLE_MPP,
            f"{path}: {found.x:g} x {found.y:g} µm/px ({found.source}) is not plausible for a slide ({low} to {high} "
            f"µm/px); {_remedy(found.source)}",
        )
    return found


def _known(properties: Mapping[str, str], given: GivenMpp) -> Resolution | None:
    if given.override is not None:
        return Resolution(given.override, given.override, "override")
    if given.listed is not None:
        return Resolution(given.listed, given.listed, "list")
    x, y = _described(properties) or (
        positive(properties.get(name)) for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
    )
    if x and y:
        return Resolution(x, y, "metadata")
    if given.if_missing is None:
        return None
    return Resolution(x or given.if_missing, y or given.if_missing, "if_missing")


def _remedy(source: str) -> str:
    if source == "metadata":
        return (
            "give the true one of all these slides with --mpp-override (µm/px at level 0), or correct the file's tags"
        )
    if source == "list":
        return "correct it in the list of slides"
    return f"correct --mpp-{source.replace('_', '-')}"


def _described(properties: Mapping[str, str]) -> tuple[float, float] | None:
    """Return the physical size of a pixel of the first image of an OME-TIFF, µm along x and y; None of other files."""
    text = properties.get("tiff.ImageDescription", "")
    pixels = _PIXELS.search(text) if "<OME" in text or ":OME" in text else None
    if pixels is None:
        return None
    values = {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(pixels[1])}
    x, y = (_in_um(values, f"PhysicalSize{axis}") for axis in "XY")
    return (x, y) if x and y else None


def _in_um(values: Mapping[str, str], name: str) -> float | None:
    size = positive(values.get(name))
    unit = _UM_PER_UNIT.get(values.get(f"{name}Unit", "µm").strip().replace("\u03bc", "µ"))  # the Greek letter, too
    return size * unit if size and unit else None


def positive(text: str | None) -> float | None:
    """Read a positive, finite number; what is not one counts as missing."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
