"""A slide of any size is planned, in memory that its size does not decide."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated.huge import write_huge

from histo.slides.plan import plan_slide
from histo.slides.slide import open_slide
from histo.slides.spec import TilingSpec, TissueSpec

PLAN = """
import json, sys
import numpy as np
from pathlib import Path
from histo.slides.plan import plan_slide
from histo.slides.spec import TilingSpec, TissueSpec
from histo.slides.slide import open_slide

def peak_mb():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024

before = peak_mb()
plan = plan_slide(*open_slide(sys.argv[1], reader=sys.argv[2]), 256, 0.5, TilingSpec(), TissueSpec())
places = np.stack(plan.grid.places(plan.tile_index), axis=1).tolist()
print(json.dumps({"places": places, "mb": peak_mb() - before}))
"""
TILE = 512
"""Level-0 pixels; two blocks of the file."""

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is Linux's to tell")


def write(path: Path, edge: int, downsamples: tuple[int, ...]) -> tuple[Path, list[list[int]]]:
    """Write a square slide with 15 tiles of tissue, three corners among them, and return their places in grid order."""
    last = edge // TILE - 1
    spread = 2 * np.random.default_rng(0).integers(last // 2, size=(12, 2))
    tiles = {(0, 0), (0, last), (last, last), *map(tuple, spread.tolist())}
    blocks = [(2 * x + right, 2 * y + down) for x, y in tiles for right in (0, 1) for down in (0, 1)]
    return write_huge(path, edge, edge, blocks, downsamples), sorted(map(list, tiles), key=lambda place: place[::-1])


def planned(path: Path, reader: str = "openslide") -> dict[str, Any]:
    """Plan tiles of 256 px at 0.5 µm/px in a process of its own; megabytes are those above what imports take."""
    done = subprocess.run([sys.executable, "-c", PLAN, str(path), reader], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


@linux
@pytest.mark.alone
@pytest.mark.parametrize(
    ("edge", "downsamples", "reader"),
    [
        pytest.param(12_800, (1,), "openslide", id="one level"),
        pytest.param(25_600, (1,), "openslide", id="one level, 25,600 px", marks=pytest.mark.slow),
        pytest.param(25_600, (1,), "direct", id="one level, 25,600 px, direct"),
        pytest.param(100_000, (1, 4, 16, 64), "openslide", id="pyramid, 100,000 px"),
    ],
)
def test_a_large_slide_is_planned_in_bounded_memory(
    tmp_path: Path, edge: int, downsamples: tuple[int, ...], reader: str
) -> None:
    path, tissue = write(tmp_path / "huge.tif", edge, downsamples)

    plan = planned(path, reader)

    assert plan["places"] == tissue
    assert plan["mb"] < 300


@linux
@pytest.mark.alone
def test_memory_grows_with_the_mask_alone(tmp_path: Path) -> None:
    path, tissue = write(tmp_path / "huge.tif", 200_000, (1, 4, 16, 64))

    plan = planned(path)

    assert plan["places"] == tissue
    assert plan["mb"] < 700, "a mask of 6250 x 6250 px"


def test_a_slide_of_one_pixel_is_planned(tmp_path: Path) -> None:
    path = write_huge(tmp_path / "small.tif", 1, 1, [(0, 0)])

    plan = plan_slide(*open_slide(str(path)), 256, 0.5, TilingSpec(), TissueSpec(min_fraction=0))

    assert (plan.grid.columns, plan.grid.rows, plan.tile_index.tolist()) == (1, 1, [0])


@pytest.mark.parametrize("level", [0, 1, 2])
def test_each_block_of_a_huge_slide_is_glass_or_the_tissue_that_was_asked_for(tmp_path: Path, level: int) -> None:
    path = write_huge(tmp_path / "huge.tif", 2500, 1700, [(3, 2), (8, 6)], (1, 2, 8))

    slide, reader = open_slide(str(path))
    size = slide.levels[level].width, slide.levels[level].height
    pixels = reader.read(slide.levels[level], 0, 0, *size)
    reader.close()

    step, edge = (1, 2, 8)[level], 256 // (1, 2, 8)[level]
    expected = np.zeros((1700 // step, 2500 // step), np.bool_)
    for column, row in ((3, 2), (8, 6)):
        expected[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge] = True
    assert (slide.mpp_x, size) == (pytest.approx(0.25), (2500 // step, 1700 // step))
    assert (pixels[~expected].mean(axis=0) > 238).all()
    assert (pixels[expected].mean(axis=0) < 225).all()
