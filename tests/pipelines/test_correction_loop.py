"""The loop of docs/annotations.md, label, correct, train again: its commands are run as they stand."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawn import make_slide, write_features
from helpers.inline_ray import inline
from helpers.plain_loop import rows_of
from PIL import Image

from histo.cli import main
from histo.demo.fabricate import SlideTruth, fabricate_tiles

PAGE = Path(__file__).resolve().parents[2] / "docs" / "annotations.md"
QUICK = ["--fit.head.epochs", "12", "--fit.tune.epochs", "0", "--no-fit.head.augment", "--augment.preset", "none"]


def commands() -> list[list[str]]:
    """Return the commands of the page's loop, in order, without the word `histo`."""
    section = PAGE.read_text(encoding="utf-8").split("## Label, correct, train again")[1]
    blocks = re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


def correct(path: Path, truth: SlideTruth) -> list[dict[str, Any]]:
    """Do what a pathologist does: keep the tiles that can be told, with the class that they have."""
    document = json.loads(path.read_text())
    kept = []
    for feature in document["features"]:
        (x, y), _, (right, bottom), *_ = feature["geometry"]["coordinates"][0]
        if name := truth.pure_class(x, y, right - x, bottom - y):
            feature["properties"]["classification"] = {"name": name, "color": [0, 0, 0]}
            kept.append(feature)
    return kept


def run_inline(command: list[str]) -> int:
    """Run a command without Ray, which is not its subject here."""
    with inline():
        return main(command)


def accuracy(scores: Path) -> float:
    """Return the accuracy of an evaluation."""
    value: float = json.loads((scores / "metrics.json").read_text())["accuracy"]
    return value


@pytest.mark.usefixtures("joined_ray")
def test_the_loop_of_the_page_teaches_a_model_that_knew_nothing(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    truths = {f"s{number}.tif": make_slide(tmp_path / "SLIDES", f"s{number}.tif", number) for number in range(3)}
    fabricate_tiles(tmp_path / "ALL", 20)
    for name in ("LYM", "TUM"):
        (tmp_path / "HELD_OUT").mkdir(exist_ok=True)
        (tmp_path / "ALL" / name).rename(tmp_path / "HELD_OUT" / name)
        (tmp_path / "TILES" / name).mkdir(parents=True)
        for number in range(8):  # nothing can be learned from noise
            noise = np.random.default_rng((number, len(name))).integers(0, 256, (224, 224, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "TILES" / name / f"{number}.png")
    common = [*tiny[:2], *QUICK, "--size-px", "96", "--workers", "1"]
    assert run_inline(["train", "--data", "TILES", "--mpp", "0.5", "--out", "RUN", *tiny[2:], *common]) == 0
    label, export, prepare, train, evaluate = commands()

    assert main(label) == 0
    assert main(export) == 0
    for name, truth in truths.items():
        features = correct(tmp_path / "LABELS" / "geojson" / f"{name}.geojson", truth)
        assert 0 < len(features) <= 50
        write_features(tmp_path / "CORRECTED" / f"{name}.geojson", features)
    assert main(prepare) == 0
    assert run_inline([*train, *common]) == 0
    assert run_inline(evaluate) == 0

    cut = [row for part in (tmp_path / "MORE").glob("*.parquet") for row in rows_of(part)]
    places = ("x", "y", "width", "height")
    assert len(cut) > 20
    assert all(truths[row["slide_id"]].pure_class(*(row[name] for name in places)) == row["label"] for row in cut)
    assert run_inline([*evaluate[:2], "RUN", *evaluate[3:-1], "BEFORE"]) == 0
    assert accuracy(tmp_path / "BEFORE") <= 0.7
    assert accuracy(tmp_path / "SCORES") >= 0.9
    assert main([*label[: label.index("--model")], "--model", "BETTER", "--out", "AGAIN"]) == 0
    rows = [row for name in truths for row in rows_of(tmp_path / "AGAIN" / "tiles" / f"{name}.parquet")]
    truly = [truths[row["slide_id"]].pure_class(*(row[name] for name in places)) for row in rows]
    right = [row["label"] == name for row, name in zip(rows, truly, strict=True) if name is not None]
    assert len(right) > 20
    assert sum(right) >= 0.8 * len(right)
