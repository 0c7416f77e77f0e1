"""Measure the quality of tiles: their sharpness, and the ink on them."""

import cv2
import numpy as np
import numpy.typing as npt

from histo.resample import Pixels
from histo.slides.tissue import ink_in

FOCUS_MPP = 1.0
"""Resolution at which focus is measured, µm per pixel; coarser tiles are measured as they are."""
INK_MPP = 8.0
"""Likewise of ink: that of the tissue mask, whose rule it is."""
LEAST_CONTRAST = 4.0
"""Standard deviation of grey levels below which a tile has nothing that could be sharp."""
_WHITE = np.full(3, 255, np.float32)

Values = npt.NDArray[np.float32]


def measure_quality(tiles: Pixels, mpp: float) -> Values:
    """Measure focus and ink of tiles.

    Focus is the root mean square of the Laplacian of grey levels over their standard deviation, at 1 µm per pixel. The
    variance of the Laplacian is a measure of focus in brightfield microscopy (Pech-Pacheco and others 2000,
    doi:10.1109/ICPR.2000.903548); the division takes the contrast of the stain out. Sharp tissue has 1 to 3, a blur
    of 1 µm (sigma of a Gaussian) takes more than two fifths of it, and JPEG compression hardly counts at this
    resolution.

    Ink is the share of pixels of 8 µm that the rule of the tissue mask takes for blue, green or red ink on white glass;
    black ink is not told from tissue.

    Args:
        tiles: uint8 RGB, `(n, size_px, size_px, 3)`.
        mpp: µm per pixel.

    Returns:
        Focus, NaN where a tile has no contrast, and ink, 0 to 1, `(n, 2)`.
    """
    found = np.full((len(tiles), 2), np.nan, np.float32)
    if not len(tiles):
        return found
    small = []
    for number, tile in enumerate(tiles):
        at_focus = _reduced(tile, mpp, FOCUS_MPP)
        found[number, 0] = _focus(cv2.cvtColor(at_focus, cv2.COLOR_RGB2GRAY))
        small.append(_reduced(at_focus, max(mpp, FOCUS_MPP), INK_MPP))
    ink = ink_in(np.concatenate(small), _WHITE)
    found[:, 1] = ink.reshape(len(tiles), -1).mean(axis=1)
    return found


def _focus(grey: npt.ArrayLike) -> float:
    _, deviation = cv2.meanStdDev(np.asarray(grey))
    contrast = float(deviation[0, 0])
    if contrast < LEAST_CONTRAST:
        return float("nan")
    edges = np.asarray(cv2.Laplacian(np.asarray(grey), cv2.CV_32F)).ravel()
    return float(np.sqrt(np.vdot(edges, edges) / edges.size)) / contrast


def _reduced(image: Pixels, mpp: float, target: float) -> Pixels:
    """Reduce an image by area to a resolution, if that is coarser."""
    size = max(1, round(image.shape[0] * min(1.0, mpp / target)))
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
