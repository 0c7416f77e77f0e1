"""What fine-tuning reaches on real tiles: `python benchmarks/results.py PATHMNIST_718.npz NCT_CROPS`.

Prints the tables of docs/results.md. For each seed, 20 % of the tiles are held out; of the others, an eighth chooses
the epoch. Beside it, on the same tiles held out, a logistic regression on the features of the same backbone as ImageNet
left it, which learns from all others, its strength of regularisation chosen among them by cross-validation.
"""

import argparse
import json
import platform
import statistics
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histo.cli import main as histo
from histo.learn.bundle import Architecture
from histo.learn.model import DEFAULT_BACKBONE, pretrained_network
from histo.learn.source import read_sources
from histo.resample import resize

CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
MPP = {"pathmnist-718.npz": "4", "nct-crops": "1.179"}


def fine_tune(data: list[Path], run: Path, seed: int, flags: list[str]) -> dict[str, float]:
    """Train, and return the accuracy on what was held out: of each source, and of all."""
    settings = {
        "data": ",".join(map(str, data)), "out": run, "seed": seed, "classes": ",".join(CLASSES),
        "mpp": ",".join(MPP[path.name] for path in data), "split.test-fraction": 0.2, "split.val-fraction": 0.1,
    }  # fmt: skip
    code = histo(["train", *(word for name, value in settings.items() for word in (f"--{name}", str(value))), *flags])
    if code:
        raise SystemExit(code)
    scores = json.loads((run / "test" / "metrics.json").read_text())
    parts = {name: part["accuracy"] for name, part in scores.get("per_source", {}).items()}
    return parts | {"all": scores["accuracy"]}


@torch.inference_mode()
def features(data: list[Path], size_px: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the features of every image as ImageNet's backbone gives them, its label, and its case id."""
    source = read_sources(data, CLASSES)
    network = pretrained_network(Architecture(backbone=DEFAULT_BACKBONE), len(CLASSES)).eval()
    rows = []
    for i in range(len(source.cases)):
        pixels = torch.from_numpy(np.array(resize(source.images.load(i), size_px)))
        rows.append(network.features(pixels.permute(2, 0, 1)[None])[0].numpy())
    return np.stack(rows), source.labels(), [case.case_id for case in source.cases]


def regress(known: tuple[np.ndarray, np.ndarray, list[str]], run: Path) -> float:
    """Return the accuracy of a logistic regression on the cases that a run held out."""
    values, labels, names = known
    table = pq.read_table(run / "split.parquet").to_pydict()
    assert table["case_id"] == names, "a run keeps the order of its source"
    split = np.array(table["split"])
    strengths = np.logspace(-5, 0, 6)
    regression = LogisticRegressionCV(
        Cs=strengths, l1_ratios=(0.0,), cv=5, scoring="accuracy", max_iter=2000, use_legacy_attributes=False
    )
    model = make_pipeline(StandardScaler(), regression)
    model.fit(values[split != "test"], labels[split != "test"])
    return float(model.score(values[split == "test"], labels[split == "test"]))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pathmnist", type=Path)
    parser.add_argument("crops", type=Path)
    parser.add_argument("--size-px", type=int, default=112)
    parser.add_argument("--seeds", type=int, default=3)
    options, flags = parser.parse_known_args()
    flags += ["--size-px", str(options.size_px)]
    known = features([options.pathmnist], options.size_px)
    alone, both = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            run = Path(folder) / f"alone{seed}"
            tuned = fine_tune([options.pathmnist], run, seed, flags)
            alone.append((tuned["all"], regress(known, run)))
            both.append(fine_tune([options.pathmnist, options.crops], Path(folder) / f"both{seed}", seed, flags))
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, {' '.join(flags)}")
    print("| pathmnist-718 | fine-tuned | logistic regression on frozen features |\n|---|---|---|")
    for seed, (tuned_accuracy, regressed) in enumerate(alone):
        print(f"| seed {seed} | {tuned_accuracy:.3f} | {regressed:.3f} |")
    means = [statistics.mean(column) for column in zip(*alone, strict=True)]
    print(f"| mean | {means[0]:.3f} | {means[1]:.3f} |")
    print("| trained on both, tested on | pathmnist-718 | nct-crops | both |\n|---|---|---|---|")
    for seed, scores in enumerate(both):
        print(f"| seed {seed} | {scores['pathmnist-718.npz']:.3f} | {scores['nct-crops']:.3f} | {scores['all']:.3f} |")


if __name__ == "__main__":
    main()
