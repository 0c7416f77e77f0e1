"""Draw tissue as haematoxylin and eosin show it.

Fields of dye, nuclei stamped on them, and the light that passes.

Every texture is two fields, `(H, W)`, the amounts of both dyes; light follows by Lambert and Beer. Lengths are in µm
where a name ends in `_um`, else in pixels of the canvas; angles are in radians, from x towards y.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from histo.resample import Pixels

Field = npt.NDArray[np.floating[Any]]
"""Of float32, to be fast; numpy's annotations cannot follow that through arithmetic."""
Dyes = tuple[Field, Field]
"""Haematoxylin and eosin."""
Places = tuple[Field, Field]
"""Rows and columns of points, in pixels; some lie beyond the canvas."""

CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
GLASS = (243, 242, 244)
"""Grey levels (R, G, B) of empty glass."""
HAEMATOXYLIN = (0.68, 0.80, 0.40)
"""Absorbance (R, G, B) of one unit of the dye."""
EOSIN = (0.10, 0.95, 0.42)
NOISE = 1.5
"""Standard deviation of the camera's noise, in grey levels."""
BAND = 32
"""Rows that are turned into light at a time, so that they stay in the processor's cache."""
DIRECTIONS, SHAPES = 24, 4
"""Nuclei of one kind are drawn in so many directions, each in so many shapes."""


def paint(name: str, height: int, width: int, rng: np.random.Generator, mpp: float = 0.25) -> Pixels:
    """Paint a patch of one class, `(height, width, 3)`, at `mpp` µm per pixel.

    Raises:
        ValueError: If there is no such class.
    """
    if name not in CLASSES:
        raise ValueError(f"class {name!r}: not one of {', '.join(CLASSES)}")
    canvas = Canvas((height, width), 1 / mpp, rng)
    return _transmit(_PAINTERS[name](canvas), rng)


def _transmit(dyes: Dyes, rng: np.random.Generator) -> Pixels:
    """Return the light that passes both dyes and the glass, with camera noise, `(H, W, 3)`."""
    image = np.empty((*dyes[0].shape, 3), np.uint8)
    for start in range(0, len(image), BAND):
        haematoxylin, eosin = (np.maximum(dye[start : start + BAND], 0) for dye in dyes)
        noise = np.float32(NOISE) * rng.standard_normal(eosin.shape, np.float32) + np.float32(0.5)
        for channel, glass in enumerate(GLASS):
            power = haematoxylin * np.float32(-np.log(10) * HAEMATOXYLIN[channel])
            power += eosin * np.float32(-np.log(10) * EOSIN[channel]) + np.float32(np.log(glass))
            light = np.exp(power, out=power)
            light += noise
            image[start : start + BAND, :, channel] = np.clip(light, 0, 255, out=light)
    return image


@dataclass(frozen=True)
class Nucleus:
    """A kind of nucleus.

    Attributes:
        length_um: Its long axis.
        width_um: Its short axis.
        ragged: How far its outline strays from an ellipse, as a share of the radius.
        clumped: How far its chromatin strays from even, as a share of the dye.
        varied: How far its size strays from nucleus to nucleus, as a share.
    """

    length_um: float
    width_um: float
    ragged: float = 0.05
    clumped: float = 0.15
    varied: float = 0.08


@dataclass(frozen=True)
class Canvas:
    """An area to be drawn on.

    Attributes:
        shape: Height and width, in pixels.
        px_per_um: Pixels per µm.
        rng: Source of all chance.
    """

    shape: tuple[int, int]
    px_per_um: float
    rng: np.random.Generator

    def blank(self) -> Field:
        """Return a field of no dye."""
        return np.zeros(self.shape, np.float32)

    def noise(self, grain_um: float) -> Field:
        """Return smooth noise of mean 0 and deviation 1, with blobs of about `grain_um`."""
        step = grain_um * self.px_per_um
        down, across = (_blend(length, step) for length in self.shape)
        field: Field = down @ self.rng.standard_normal((down.shape[1], across.shape[1]), np.float32) @ across.T
        return field

    def fibres(self, width_um: float, angle: float, wave_um: float) -> Field:
        """Return strands along `angle` of mean 0 and deviation 1, which stray sideways by about `wave_um`."""
        rows, columns = (np.arange(length, dtype=np.float32) for length in self.shape)
        sideways = wave_um * self.px_per_um * self.noise(70)
        sideways += np.float32(np.cos(angle)) * rows[:, None] - np.float32(np.sin(angle)) * columns
        index = sideways.astype(np.int32)
        index -= index.min()
        profile = _blend(int(index.max()) + 1, width_um * self.px_per_um)
        strands: Field = profile @ self.rng.standard_normal(profile.shape[1], np.float32)
        return strands[index]

    def places(self, spacing_um: float, jitter: float = 0.3, share: float = 1.0) -> Places:
        """Return points of a shaken hexagonal grid of chance origin, which reaches beyond the canvas.

        Args:
            spacing_um: Distance between neighbours.
            jitter: How far a point may be off along each axis, as a share of the spacing.
            share: Share of the points that are kept.
        """
        step = spacing_um * self.px_per_um
        height, width = self.shape
        i, j = np.mgrid[-3 : ceil(height / step / 0.866) + 2, -3 : ceil(width / step) + 2].astype(np.float32)
        points = np.stack([i.ravel() * 0.866, (j + 0.5 * (i % 2)).ravel()])
        points += self.rng.uniform(0, 1, (2, 1)) + self.rng.uniform(-jitter, jitter, points.shape)
        rows, columns = step * points[:, self.rng.random(points.shape[1]) < share]
        return rows.astype(np.float32), columns.astype(np.float32)

    def any_angles(self, places: Places) -> Field:
        """Return an angle of chance for each place."""
        return self.rng.uniform(0, np.pi, len(places[0]))

    def distances(self, places: Places, reach_um: float) -> tuple[Field, Field]:
        """Return the distances to the nearest and to the second nearest place, in µm, up to about `reach_um`."""
        reach = round(reach_um * self.px_per_um)
        offset = np.arange(-reach, reach + 1, dtype=np.float32)
        cone = np.hypot(offset[:, None], offset) / np.float32(self.px_per_um)
        size = len(cone)
        first, second = (np.full([n + 2 * size for n in self.shape], reach_um, np.float32) for _ in range(2))
        for window in _windows(places, self.shape, size):
            np.minimum(second[window], np.maximum(first[window], cone), out=second[window])
            np.minimum(first[window], cone, out=first[window])
        return first[size:-size, size:-size], second[size:-size, size:-size]

    def scatter(self, nucleus: Nucleus, places: Places, angles: npt.ArrayLike) -> Field:
        """Return nuclei at places, each along its angle: about 1 within, 0 outside."""
        stamps = self._stamps(nucleus)
        size = stamps.shape[-1]
        layer = np.zeros([n + 2 * size for n in self.shape], np.float32)
        turns = np.broadcast_to(np.round(np.asarray(angles) / np.pi * DIRECTIONS).astype(int), places[0].shape)
        shapes = self.rng.integers(SHAPES, size=turns.shape)
        windows = _windows(places, self.shape, size)
        for window, turn, shape in zip(windows, turns % DIRECTIONS, shapes, strict=True):
            np.maximum(layer[window], stamps[turn, shape], out=layer[window])
        return layer[size:-size, size:-size]

    def _stamps(self, nucleus: Nucleus) -> Field:
        """Draw one kind of nucleus, `(DIRECTIONS, SHAPES, size, size)`."""
        reach = ceil(nucleus.length_um * self.px_per_um * 0.5 * (1 + nucleus.varied + 2 * nucleus.ragged)) + 1
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
        turn = (np.arange(DIRECTIONS) * np.pi / DIRECTIONS).reshape(-1, 1, 1, 1)
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        long, short = (0.5 * self.px_per_um * length for length in (nucleus.length_um, nucleus.width_um))
        radius = np.hypot(along / long, across / short) / self._outline(nucleus, np.arctan2(across, along))
        inside = np.clip((1 - radius) * short + 0.5, 0, 1)
        rim = 1.5 * nucleus.clumped * np.exp(-(((radius - 0.9) / 0.15) ** 2))
        stamps: Field = (inside * (1 + rim + self._chromatin(nucleus, len(y)))).astype(np.float32)
        return stamps

    def _outline(self, nucleus: Nucleus, direction: Field) -> Field:
        """Return the relative radius of ragged nuclei towards a direction of their own frame."""
        phase = self.rng.uniform(0, 2 * np.pi, (4, DIRECTIONS, SHAPES, 1, 1))
        waves = [np.cos(k * direction + phase[k - 2]) for k in (2, 3, 4, 5)]
        size = 1 + nucleus.varied * self.rng.uniform(-1, 1, (DIRECTIONS, SHAPES, 1, 1))
        outline: Field = size * (1 + 0.5 * nucleus.ragged * np.sum(waves, axis=0))
        return outline

    def _chromatin(self, nucleus: Nucleus, size: int) -> Field:
        """Return how far the dye strays from even: in clumps, and from nucleus to nucleus."""
        blend = _blend(size, 1.2 * self.px_per_um)
        clumps = blend @ self.rng.standard_normal((DIRECTIONS, SHAPES, blend.shape[1], blend.shape[1])) @ blend.T
        darker = self.rng.standard_normal((DIRECTIONS, SHAPES, 1, 1))
        chromatin: Field = nucleus.clumped * np.clip(clumps + darker, -3, 3)
        return chromatin


def _blend(length: int, step: float) -> Field:
    """Return weights, `(length, knots)`, that make smooth noise of deviation 1 from one normal number per knot."""
    knots = np.arange(-2, ceil(length / step) + 3, dtype=np.float32)
    weights = np.exp(-(((np.arange(length, dtype=np.float32)[:, None] / np.float32(step) - knots) / 0.7) ** 2))
    blend: Field = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    return blend


def _windows(places: Places, shape: tuple[int, int], size: int) -> list[tuple[slice, slice]]:
    """Return the window of `size` around each place, in a layer with a margin of `size` that takes what is outside."""
    reach = size // 2
    corners = [
        (np.clip(np.round(along), -reach - 1, length + reach) + size - reach).astype(int).tolist()
        for along, length in zip(places, shape, strict=True)
    ]
    return [np.s_[top : top + size, left : left + size] for top, left in zip(*corners, strict=True)]


def _over(dyes: Dyes, nuclei: Field, dye: float) -> Dyes:
    """Lay nuclei over a ground: they hold `dye` haematoxylin and hide the ground under them."""
    clear = 1 - np.minimum(nuclei, 1)
    return dyes[0] * clear + np.float32(dye) * nuclei, dyes[1] * (0.4 + 0.6 * clear)


def _within(distance: Field, limit_um: float) -> Field:
    """Return 1 where a distance in µm is below a limit and 0 beyond, with an edge of 1 µm."""
    share: Field = np.clip(limit_um - distance + 0.5, 0, 1)
    return share


def _ridges(field: Field, width: float) -> Field:
    """Return thin lines, 1 where smooth noise is 0."""
    lines: Field = np.exp(-((field / np.float32(width)) ** 2))
    return lines


def _adipose(canvas: Canvas) -> Dyes:
    """Large empty cells, with thin pink walls between them and few flat nuclei in these."""
    near, next_near = canvas.distances(canvas.places(54, jitter=0.22), reach_um=60)
    corners = 0.12 * np.maximum(near - 24, 0)
    walls = _ridges(np.maximum(next_near - near - corners, 0), 2.6) * (0.8 + 0.2 * canvas.noise(12))
    places = canvas.places(30, share=0.7)
    nuclei = canvas.scatter(Nucleus(7, 4), places, canvas.any_angles(places))
    return _over((0.10 * walls, 0.34 * walls), nuclei * (walls > 0.3), 0.6)


def _background(canvas: Canvas) -> Dyes:
    """Empty glass."""
    return canvas.blank(), canvas.blank()


def _debris(canvas: Canvas) -> Dyes:
    """Pale, smeared, granular, with fragments of nuclei in clouds."""
    smear = canvas.fibres(7, canvas.rng.uniform(0, np.pi), wave_um=40)
    grains = 0.7 * canvas.noise(1.4) + 0.7 * canvas.noise(4)
    places = canvas.places(6, jitter=0.5, share=0.8)
    fragments = canvas.scatter(Nucleus(3.6, 2.2, 0.35), places, canvas.any_angles(places))
    cloud = np.clip(0.5 + 0.8 * canvas.noise(16), 0, 1)
    ground = (0.12 + 0.035 * smear + 0.04 * grains, 0.15 + 0.03 * canvas.noise(14) + 0.03 * grains)
    return _over(ground, fragments * cloud, 0.5)


def _lymphocytes(canvas: Canvas) -> Dyes:
    """Crowded, small, round, dark nuclei of one size."""
    places = canvas.places(7.4, jitter=0.24, share=0.93)
    nuclei = canvas.scatter(Nucleus(6.5, 6.0, 0.04), places, canvas.any_angles(places))
    return _over((0.10 + 0.02 * canvas.noise(8), 0.13 + 0.04 * canvas.noise(5)), nuclei, 0.66)


def _mucus(canvas: Canvas) -> Dyes:
    """Pale lilac, webbed with faint strands; hardly any nuclei."""
    web = _ridges(canvas.noise(24), 0.16) + 0.7 * _ridges(canvas.noise(13), 0.13)
    places = canvas.places(42, jitter=0.5, share=0.6)
    nuclei = canvas.scatter(Nucleus(7, 5, 0.1), places, canvas.any_angles(places))
    return _over((0.115 + 0.02 * canvas.noise(30) + 0.12 * web, 0.02 + 0.03 * web), nuclei, 0.6)


def _muscle(canvas: Canvas) -> Dyes:
    """Saturated, straight, parallel fibres with long nuclei along them."""
    angle = canvas.rng.uniform(0, np.pi)
    fibres = 0.7 * canvas.fibres(3.5, angle, wave_um=2.5) + 0.5 * canvas.fibres(1.4, angle, wave_um=3)
    places = canvas.places(22, jitter=0.45, share=0.85)
    nuclei = canvas.scatter(Nucleus(18, 2.8), places, angle + 0.08 * canvas.rng.standard_normal(len(places[0])))
    return _over((0.05 + 0.01 * fibres, 0.29 + 0.045 * fibres), nuclei, 0.5)


def _normal(canvas: Canvas) -> Dyes:
    """Round glands in loose rows: pale lumen, pale goblets, nuclei along the outer rim, cells between the glands."""
    centres = canvas.places(88, jitter=0.07)
    distance = canvas.distances(centres, reach_um=60)[0] + 1.5 * canvas.noise(14)
    gland, lumen = _within(distance, 36), _within(distance, 10)
    goblets = _ring(canvas, centres, Nucleus(10, 8, 0.05, 0.02, 0.25), radius_um=19, count=10)
    rim = _ring(canvas, centres, Nucleus(8.5, 5.0), radius_um=31, count=32)
    places = canvas.places(12, share=0.8)
    loose = canvas.scatter(Nucleus(6.5, 4.5, 0.1), places, canvas.any_angles(places))
    clear = 1 - np.maximum(lumen, np.minimum(goblets, 1) * gland)
    ground = (
        (0.04 + 0.08 * gland) * (0.5 + 0.5 * clear),
        (0.15 + 0.06 * gland + 0.025 * canvas.noise(3)) * (0.1 + 0.9 * clear),
    )
    return _over(ground, np.maximum(rim * _within(distance, 39), loose * _within(-distance, -38)), 0.55)


def _ring(canvas: Canvas, centres: Places, nucleus: Nucleus, radius_um: float, count: int) -> Field:
    """Set `count` nuclei on a circle around each centre, each pointing to it."""
    turns = np.linspace(0, 2 * np.pi, count, endpoint=False)
    turns = turns + canvas.rng.normal(0, 0.5 / count, (len(centres[0]), count))
    radius = canvas.px_per_um * (radius_um + canvas.rng.normal(0, 0.8, turns.shape))
    rows, columns = centres[0][:, None] + radius * np.sin(turns), centres[1][:, None] + radius * np.cos(turns)
    return canvas.scatter(nucleus, (rows.ravel(), columns.ravel()), turns.ravel())


def _stroma(canvas: Canvas) -> Dyes:
    """Paler, wavy fibres with gaps, and thin nuclei that follow them loosely."""
    angle = canvas.rng.uniform(0, np.pi)
    fibres = 0.7 * canvas.fibres(4.5, angle, wave_um=15) + 0.7 * canvas.fibres(1.8, angle + 0.35, wave_um=17)
    places = canvas.places(15, jitter=0.45, share=0.7)
    nuclei = canvas.scatter(Nucleus(9, 2.8, 0.1), places, angle + 0.5 * canvas.rng.standard_normal(len(places[0])))
    return _over((0.05 + 0.015 * fibres, 0.11 + 0.075 * fibres), nuclei, 0.55)


def _tumour(canvas: Canvas) -> Dyes:
    """Crowded, large, ragged nuclei of many sizes without order, in purple cytoplasm."""
    ground = 0.17 + 0.03 * canvas.noise(5), 0.17 + 0.05 * canvas.noise(7)
    places = canvas.places(13, jitter=0.4, share=0.95)
    nuclei = canvas.scatter(Nucleus(14, 10, 0.13, 0.24, 0.3), places, canvas.any_angles(places))
    return _over(ground, nuclei, 0.42)


_PAINTERS: dict[str, Callable[[Canvas], Dyes]] = {
    "ADI": _adipose,
    "BACK": _background,
    "DEB": _debris,
    "LYM": _lymphocytes,
    "MUC": _mucus,
    "MUS": _muscle,
    "NORM": _normal,
    "STR": _stroma,
    "TUM": _tumour,
}
