"""Tell brightfield slides in colour from fluorescence and grey images.

In brightfield the light comes through the glass: glass is the brightest, stains take from it, and what is black (a
border, a pen) is either hardly there or lies beside glass. In fluorescence the light comes from the specimen: what is
empty is black, and what is lit is dim, grey, or of one pure colour. Levels are shares of the slide's own white, so that
a dark or a pale scan is judged like another.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from histo.errors import Cause, SlideError

DIMMEST_WHITE = 64
"""Grey level of 255 that a hundredth of a slide reaches at least, however dark it was scanned."""
DARK = 0.2
"""Share of white below which a pixel is black."""
ONE_COLOUR = 0.1
"""Least channel over the greatest of light of one colour; the densest DAB and eosin keep twice as much."""
BLACK_SHARE = 0.1
"""Share of black pixels from which the others are looked at: stained tissue without a border has hardly any."""
LIT = 0.35
"""Share of white that comes through tissue; dense haematoxylin or DAB let more through in one channel at least."""
PUREST = 0.3
"""Least channel over the greatest of most of what light came through, beside black."""
GREENER = 0.05
"""Green above red and blue, as a share of white, in light that no stain of tissue lets through."""
GREY_SPREAD = 0.15
"""How far grey pixels beside black must spread, as a share of white, to be a specimen and not mere glass."""
EQUAL_SHARE = 0.9999
"""Share of pixels of equal channels from which a slide has no colours; no camera of three channels gets there."""
STRUCTURE_SHARE = 0.005
"""Share of pixels between black and white from which a slide without colours holds a specimen."""


def is_brightfield(path: str, pixels_NC: npt.NDArray[np.integer[Any]], any_image: bool) -> bool:
    """Tell whether a slide looks like stained tissue in transmitted light, or like mere glass.

    Args:
        path: The slide's.
        pixels_NC: A sample of it, RGB of 0 to 255.
        any_image: Whether another slide is to be labelled all the same.

    Raises:
        SlideError: If it does not, and is not; the message says what was seen.
    """
    seen = _not_brightfield(pixels_NC.astype(np.int16)) if len(pixels_NC) else None
    if seen is not None and not any_image:
        raise SlideError(
            Cause.NOT_BRIGHTFIELD,
            f"{path}: not a brightfield slide in colour: {seen}; leave it out, or label all the same with "
            "--tissue.any-image",
        )
    return seen is None


def _not_brightfield(pixels_NC: npt.NDArray[np.int16]) -> str | None:
    """Say what is seen of a slide that is not brightfield; None for one that is, or may be."""
    high_N, low_N = pixels_NC.max(axis=1), pixels_NC.min(axis=1)
    white = float(np.percentile(high_N, 99))
    if white < DIMMEST_WHITE:
        return (
            f"it is nearly black (99 of 100 pixels are at most {white:.0f} of 255), as are fluorescence and 12 bits "
            "stored in 16"
        )
    between_N = (high_N > 0.1 * white) & (high_N < 0.9 * white)
    if (high_N - low_N <= 1).mean() >= EQUAL_SHARE and between_N.mean() >= STRUCTURE_SHARE:
        return "it is grey, all channels are equal"
    lit_N = high_N >= DARK * white
    black = 1 - float(lit_N.mean())
    if (low_N[lit_N] < ONE_COLOUR * high_N[lit_N]).mean() > 0.5:
        return f"it is of one pure colour, as in fluorescence ({black:.0%} black)"
    return _beside_black(pixels_NC[lit_N] / white, black) if black >= BLACK_SHARE else None


def _beside_black(lit_NC: npt.NDArray[np.float64], black: float) -> str | None:
    """Say what is seen of the pixels that are not black, as shares of white, if it is no transmitted light."""
    high_N, low_N = lit_NC.max(axis=1), lit_NC.min(axis=1)
    green_N = lit_NC[:, 1] - np.maximum(lit_NC[:, 0], lit_NC[:, 2])
    transmitted_N = (high_N >= LIT) & (low_N >= PUREST * high_N) & (green_N < GREENER)
    if transmitted_N.mean() < 0.5:
        return f"it is bright on black, as in fluorescence ({black:.0%} black, the rest dim or of a light's colour)"
    tenth, most = np.percentile(high_N, [10, 90])
    if (high_N - low_N <= 0.03).mean() > 0.9 and most - tenth > GREY_SPREAD:
        return f"it is grey on black, as in fluorescence ({black:.0%} black, the rest without colour)"
    return None
