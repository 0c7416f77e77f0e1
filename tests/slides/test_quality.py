"""Quality of tiles: focus falls with blur and not with compression, and ink is told from tissue."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest

from histo.demo.fabricate import INK
from histo.demo.textures import CLASSES, paint
from histo.resample import Pixels, resize
from histo.slides.quality import measure_quality

BLURS_UM = (0, 0.5, 1, 1.5, 2, 3)
QUALITIES = (95, 80, 60, 40)
STRUCTURED = [name for name in CLASSES if name not in ("BACK", "ADI", "MUC")]


def blurred(image: Pixels, sigma_um: float, mpp: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_um / mpp)) if sigma_um else image


def compressed(image: Pixels, quality: int) -> Pixels:
    _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))


def focus(image: Pixels, mpp: float) -> float:
    """Focus of one square of tissue, as a tile of 224 px."""
    return float(measure_quality(resize(image, 224)[None], mpp * image.shape[0] / 224)[0, 0])


def assert_falls(values: list[float]) -> None:
    assert all(later < earlier for earlier, later in pairwise(values)), values
    assert values[BLURS_UM.index(1)] < 0.6 * values[0]


@pytest.mark.parametrize("name", STRUCTURED)
def test_focus_falls_with_blur_and_holds_under_compression(name: str) -> None:
    tissue = paint(name, 448, 448, np.random.default_rng(0))

    assert_falls([focus(blurred(tissue, sigma, 0.25), 0.25) for sigma in BLURS_UM])
    sharp = focus(tissue, 0.25)
    for quality in QUALITIES:
        assert focus(compressed(tissue, quality), 0.25) == pytest.approx(sharp, rel=0.05)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "tcga-cr-7395-01a-01-ts1.svs"])
def test_focus_of_real_tissue_falls_with_blur_and_holds_under_compression(shared: Path, name: str) -> None:
    with openslide.OpenSlide(shared / "slides" / name) as slide:
        mpp = float(slide.properties.get(openslide.PROPERTY_NAME_MPP_X, 0.25))
        edge = round(112 / mpp)
        places = [
            (x, y)
            for x in range(0, slide.dimensions[0] - edge, edge)
            for y in range(0, slide.dimensions[1] - edge, edge)
        ]
        images = [np.array(slide.read_region(place, 0, (edge, edge)).convert("RGB")) for place in places]
    tissue = [image for image in images if image.std() > 25 and image.mean() < 210]
    assert len(tissue) >= 10

    for image in tissue:
        assert_falls([focus(blurred(image, sigma, mpp), mpp) for sigma in BLURS_UM])
        for quality in QUALITIES:
            assert focus(compressed(image, quality), mpp) == pytest.approx(focus(image, mpp), rel=0.1)


@pytest.mark.parametrize("name", STRUCTURED)
def test_focus_does_not_depend_on_the_resolution_of_the_tile(name: str) -> None:
    tissue = paint(name, 448, 448, np.random.default_rng(1))

    fine, half = measure_quality(tissue[None], 0.25)[0, 0], measure_quality(resize(tissue, 224)[None], 0.5)[0, 0]

    assert half == pytest.approx(fine, rel=0.05)


def test_what_has_no_contrast_has_no_focus() -> None:
    glass = np.random.default_rng(0).normal(240, 3, (1, 224, 224, 3)).astype(np.uint8)

    assert np.isnan(measure_quality(glass, 0.5)[0, 0])
    assert measure_quality(np.empty((0, 224, 224, 3), np.uint8), 0.5).shape == (0, 2)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_ink_is_the_share_of_the_tile_under_it(share: float) -> None:
    tile = resize(paint("TUM", 448, 448, np.random.default_rng(0)), 224)
    columns = round(224 * share)
    tile[:, :columns] = np.round(tile[:, :columns] * INK).astype(np.uint8)

    assert measure_quality(tile[None], 0.5)[0, 1] == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("name", CLASSES)
def test_no_tissue_is_ink(name: str) -> None:
    tiles = np.stack([resize(paint(name, 448, 448, np.random.default_rng(seed)), 224) for seed in range(4)])

    assert measure_quality(tiles, 0.5)[:, 1].max() <= 0.02
