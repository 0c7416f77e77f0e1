"""The slide that speed is measured on."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import openslide
import pytest

from histo.slides.plan import plan_slide
from histo.slides.slide import open_slide
from histo.slides.spec import TilingSpec, TissueSpec

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "slide.svs"
    command = [sys.executable, str(ROOT / "benchmarks" / "slide.py"), str(path), "--edge-px", "8192"]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(ROOT)})
    return path


def test_it_is_an_aperio_slide_of_a_quarter_micrometre(path: Path) -> None:
    with openslide.OpenSlide(path) as slide:
        assert slide.properties[openslide.PROPERTY_NAME_VENDOR] == "aperio"
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == 0.25
        assert slide.level_dimensions == ((8192, 8192), (2048, 2048), (512, 512))


def test_coarser_levels_are_box_averages_of_the_finest(path: Path) -> None:
    cells = [level_cells(path, level) for level in range(3)]

    for coarse in cells[1:]:
        np.testing.assert_allclose(coarse, cells[0], atol=5)


def test_two_fifths_of_it_are_tissue(path: Path) -> None:
    plan = plan_slide(*open_slide(str(path)), 224, 0.5, TilingSpec(), TissueSpec())

    assert plan.tissue_mm2 / (8192 * 0.25e-3) ** 2 == pytest.approx(0.4, abs=0.02)
    assert len(plan.tile_index) == pytest.approx(0.4 * (8192 / 448) ** 2, rel=0.2)


def level_cells(path: Path, level: int) -> np.ndarray:
    """The mean colour of each cell of 256 level-0 pixels."""
    with openslide.OpenSlide(path) as slide:
        image = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB"))
    edge = len(image) // 32
    return image.reshape(32, edge, 32, edge, 3).mean(axis=(1, 3))
