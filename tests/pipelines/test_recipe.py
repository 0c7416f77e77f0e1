"""The recipe of docs/train.md, typed as it stands, on a small fabricated folder of the layout of NCT-CRC-HE-100K.

It trains and evaluates the default network with its ImageNet weights.
"""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo.cli import main
from histo.demo.textures import CLASSES, paint
from histo.resample import resize

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("joined_ray")]


def fabricate(folder: Path, name: str, per_class: int, seed: int) -> None:
    """`FOLDER/CLASS/CLASS-XXXX.tif`, 224 px, not compressed, as in the archives."""
    random = np.random.default_rng(seed)
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        for number in range(per_class):
            tile = resize(paint(label, 448, 448, random), 224)
            Image.fromarray(tile).save(folder / label / f"{label}-{name}{number:04}.tif")


def commands() -> list[list[str]]:
    """The commands of the recipe."""
    text = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    block = re.search(r"^## Recipe: NCT-CRC-HE-100K$.*?```bash\n(.*?)```", text, flags=re.MULTILINE | re.DOTALL)
    assert block, "the page has the recipe"
    lines = block[1].replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("histo ")]


def test_the_recipe_runs_from_the_command_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fabricate(tmp_path / "NCT-CRC-HE-100K", "", per_class=6, seed=0)
    fabricate(tmp_path / "CRC-VAL-HE-7K", "TCGA-", per_class=3, seed=1)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    typed = commands()

    codes = [main(words[1:]) for words in typed]

    assert [words[1] for words in typed] == ["train", "evaluate"]
    assert codes == [0, 0]
    scores = json.loads((tmp_path / "REPORT" / "metrics.json").read_text())
    assert scores["n"] == 27
    assert scores["seen_in_training"] == 0
    assert scores["classes"] == list(CLASSES)
    assert scores["accuracy"] > 0.5, "the textures are easy to tell apart"
    assert set(scores["colour_baseline"]) == {"mean_rgb", "colour_histogram"}
    assert json.loads((tmp_path / "RUN" / "test" / "metrics.json").read_text())["accuracy"] == scores["accuracy"]
    assert json.loads((tmp_path / "RUN" / "model" / "model.json").read_text())["input"]["mpp"] == 0.5
    for name in ("confusion", "mistakes", "reliability", "roc"):
        assert (tmp_path / "REPORT" / "figures" / f"{name}.png").stat().st_size > 10_000
    assert (tmp_path / "RUN" / "figures" / "curves.png").is_file()
