"""Pictures of a slide of 100,000 px are drawn in memory that its size does not decide."""

import subprocess
import sys
from pathlib import Path

import openslide
import pytest
from fabricated.huge import write_huge
from PIL import Image

DRAW = """
import sys
from pathlib import Path
import numpy as np
from histo.report.slide.colours import class_colours
from histo.report.slide.labels import Axis, SlideLabels
from histo.report.slide.panel import read_panel
from histo.report.slide.picture import class_map, draw
from histo.report.slide.tiff import write_class_map

def peak_mb():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024

slide, out = Path(sys.argv[1]), Path(sys.argv[2])
random = np.random.default_rng(0)
pred = random.integers(-2, 3, (224, 224)).astype(np.int16)
axis, ones = Axis(25_000, 112, 112, 224), np.ones(pred.shape, np.float32)
classes, mpp = ("a", "b", "c"), (0.25, 0.25)
labels = SlideLabels("huge.tif", classes, axis, axis, mpp, "metadata", 224, (0.5, 0.5), pred, ones, "", "")
colours = class_colours(labels.classes)
before = peak_mb()
draw(labels, read_panel(slide, labels), class_map(labels, colours), "", out / "p.png")
write_class_map(labels, colours, out / "map.tif")
print(peak_mb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is Linux's to tell")
@pytest.mark.alone
@pytest.mark.parametrize("downsamples", [(1, 4, 16), (1, 4, 16, 64)])
def test_a_huge_slide_is_drawn_in_bounded_memory(tmp_path: Path, downsamples: tuple[int, ...]) -> None:
    slide = write_huge(tmp_path / "huge.tif", 100_000, 100_000, [(100, 100), (101, 101)], downsamples)

    done = subprocess.run(
        [sys.executable, "-c", DRAW, str(slide), str(tmp_path)], check=True, capture_output=True, text=True
    )

    assert float(done.stdout) < 350
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width > 2400
    with openslide.OpenSlide(tmp_path / "map.tif") as class_map:
        assert class_map.level_count == 5
        assert float(class_map.properties["openslide.mpp-x"]) == pytest.approx(7)
