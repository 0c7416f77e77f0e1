from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from histo.demo.fabricate import write_pyramid
from histo.report.overlay import MUTED, class_colours, draw_overlay


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "glass.tif"
    write_pyramid(path, np.full((900, 1800, 3), 244, np.uint8), mpp=None, downsamples=(1,))
    return path


def tiles(labels: list[str | None]) -> pa.Table:
    count = len(labels)
    return pa.table(
        {
            "x": [448 * i for i in range(count)],
            "y": [0] * count,
            "width": [448] * count,
            "height": [448] * count,
            "label": pa.array(labels, pa.string()),
        }
    )


def pixels_of(picture: Path) -> np.ndarray:
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB")) / 255


def colour_share(picture: Path, colour: str) -> float:
    """Share of pixels near a colour as it looks through the overlay's transparency on glass."""
    pixels = pixels_of(picture)
    seen = 0.75 * np.array(to_rgb(colour)) + 0.25 * 244 / 255
    return float((np.abs(pixels - seen).max(axis=2) < 0.02).mean())


def test_each_tile_has_the_colour_of_its_class(slide: Path, tmp_path: Path) -> None:
    draw_overlay(slide, tiles(["STR", "STR", "TUM", None]), ["MUS", "STR", "TUM"], 0.5, tmp_path / "o.png")

    muscle, stroma, tumour = (colour_share(tmp_path / "o.png", colour) for colour in MUTED[:3])

    assert stroma == pytest.approx(2 * tumour, rel=0.2)
    assert tumour > 0.005
    assert muscle < 0.001
    assert colour_share(tmp_path / "o.png", "black") == pytest.approx(tumour, rel=0.2)


def test_a_slide_without_tiles_has_a_picture_too(slide: Path, tmp_path: Path) -> None:
    draw_overlay(slide, tiles([]), ["STR", "TUM"], 0.5, tmp_path / "o.png")

    assert pixels_of(tmp_path / "o.png").shape[1] > 1000


def test_up_to_ten_classes_have_different_colours() -> None:
    assert len(set(class_colours([str(i) for i in range(10)]).values())) == 10
