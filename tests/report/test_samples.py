from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo.report.samples import draw_samples, draw_unchanged

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def tiles(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.stack([np.full((16, 16, 3), colour, np.uint8) for colour in colours])


def places(picture: Path, colour: tuple[int, int, int]) -> np.ndarray:
    """(x, y) of every pixel of a colour."""
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    return np.argwhere((pixels == colour).all(axis=2))[:, ::-1]


def test_each_row_has_its_original_at_the_left_of_its_changed_tiles(tmp_path: Path) -> None:
    changed = np.stack([tiles(GREEN, GREEN), tiles(BLUE, BLUE)])

    draw_samples(tiles(RED, RED), changed, ["STR", "TUM"], tmp_path / "s.png", "two tiles")
    red, green, blue = (places(tmp_path / "s.png", colour) for colour in (RED, GREEN, BLUE))

    assert red[:, 0].max() < min(green[:, 0].min(), blue[:, 0].min())
    assert green[:, 1].max() < blue[:, 1].min()
    assert len(red) == pytest.approx(len(green), rel=0.02)
    assert len(green) == pytest.approx(len(blue), rel=0.02)


def test_the_originals_are_set_apart(tmp_path: Path) -> None:
    draw_samples(tiles(RED), tiles(GREEN, BLUE)[None], ["TUM"], tmp_path / "s.png", "one tile")
    red, green, blue = (places(tmp_path / "s.png", colour)[:, 0] for colour in (RED, GREEN, BLUE))

    assert green.min() - red.max() > 2 * (blue.min() - green.max())


def test_a_title_too_few_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 originals, 2 rows of changed tiles, 1 titles"):
        draw_samples(tiles(RED, RED), np.stack([tiles(BLUE)] * 2), ["TUM"], tmp_path / "s.png", "")


def test_tiles_that_nothing_changes_are_shown_once(tmp_path: Path) -> None:
    grey = (90, 90, 90)
    shown = tiles(RED, GREEN, grey, grey, grey, BLUE)

    draw_unchanged(shown, [*"ABCDE", "F" * 40], tmp_path / "s.png", "as they are")

    red, green, blue = (places(tmp_path / "s.png", colour) for colour in (RED, GREEN, BLUE))
    assert red[:, 0].max() < green[:, 0].min(), "side by side"
    assert blue[:, 1].min() > red[:, 1].max(), "the sixth in a second row"
    assert len(red) == pytest.approx(len(green), rel=0.02)
    assert len(red) == pytest.approx(len(blue), rel=0.02)
    with pytest.raises(ValueError, match="zip"):
        draw_unchanged(tiles(RED), [], tmp_path / "s.png", "")
