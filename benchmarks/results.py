"""What fine-tuning reaches on real tiles: `python benchmarks/results.py PATHMNIST_718.npz NCT_CROPS`.

Prints the tables of docs/results.md. Each source is cross-validated by itself, then both together. Beside the network,
on the same folds, stand logistic regressions that learn from the same training tiles, have their regularisation and
their temperature chosen on the same validation tiles, and see the features of the same backbone as ImageNet left it, or
nothing but colour.
"""

import argparse
import json
import platform
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy.special import softmax

from histo.cli import main as histo
from histo.learn.bundle import Architecture, read_bundle
from histo.learn.data.source import Source, read_sources
from histo.learn.fit.calibration import fit_temperature
from histo.learn.network.model import pretrained_network
from histo.learn.network.spec import DEFAULT_BACKBONE
from histo.learn.score.colour_regression import Features, colour_features, fit_regression
from histo.learn.score.predictions import Predictions, measure
from histo.resample import resize

CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
MPP = {"pathmnist-718.npz": "4", "nct-crops": "1.179"}
FOLDS = 5
MODELS = {
    "tuned": "fine-tuned",
    "frozen": "regression on frozen features",
    "colour_histogram": "regression on a colour histogram",
    "mean_rgb": "regression on mean RGB",
}


def cross_validate(data: list[Path], out: Path, size_px: int, flags: list[str]) -> None:
    """Fine-tune, fold by fold."""
    settings = {
        "data": ",".join(map(str, data)), "out": out, "classes": ",".join(CLASSES), "folds": FOLDS, "size-px": size_px,
        "mpp": ",".join(MPP[path.name] for path in data),
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    code = histo(["crossval", *words, *flags])
    if code:
        raise SystemExit(code)


@torch.inference_mode()
def frozen_features(source: Source, size_px: int) -> Features:
    """Return the features of every image as ImageNet's backbone gives them, `(n, features)`."""
    network = pretrained_network(Architecture(backbone=DEFAULT_BACKBONE), len(CLASSES)).eval()
    rows = []
    for i in range(len(source.cases)):
        pixels = torch.from_numpy(np.array(resize(source.images.load(i), size_px)))
        rows.append(network.features(pixels.permute(2, 0, 1)[None])[0].double().numpy())
    return np.stack(rows)


def read_predictions(source: Source, out: Path) -> Predictions:
    """Return what the networks predicted of the cases that they did not see."""
    table = pq.read_table(out / "predictions.parquet")
    assert table["case_id"].to_pylist() == [case.case_id for case in source.cases], "the order is the source's"
    folds = table["fold"].to_numpy()
    temperatures = np.array([read_bundle(out / f"fold_{fold}" / "model").temperature for fold in range(FOLDS)])
    return Predictions(
        cases=source.cases,
        classes=CLASSES,
        truth_N=source.labels(),
        probabilities_NK=np.stack([table[f"prob_{name}"].to_numpy() for name in CLASSES], axis=1),
        temperatures_N=temperatures[folds],
        fold_N=folds,
    )


def regress(values: Features, tuned: Predictions, out: Path) -> Predictions:
    """Predict every case by a regression that did not see its fold."""
    probabilities, temperatures = np.empty_like(tuned.probabilities_NK), np.empty_like(tuned.temperatures_N)
    for fold in range(FOLDS):
        splits = np.array(pq.read_table(out / f"fold_{fold}" / "split.parquet")["split"].to_pylist())
        train, val, test = (splits == part for part in ("train", "val", "test"))
        model = fit_regression(values[train], tuned.truth_N[train], values[val], tuned.truth_N[val])
        temperature = fit_temperature(model.predict_log_proba(values[val]), tuned.truth_N[val])
        probabilities[test] = softmax(model.predict_log_proba(values[test]) / temperature, axis=1)
        temperatures[test] = temperature
    return replace(tuned, probabilities_NK=probabilities, temperatures_N=temperatures)


def compare(data: list[Path], out: Path, size_px: int, flags: list[str]) -> dict[str, dict[str, Any]]:
    """Cross-validate all models on the same folds, and score them."""
    cross_validate(data, out, size_px, flags)
    source = read_sources(data, CLASSES)
    tuned = read_predictions(source, out)
    features = {"frozen": frozen_features(source, size_px)}
    features |= colour_features(source.images, range(len(source.cases)))
    found = {"tuned": tuned} | {name: regress(values, tuned, out) for name, values in features.items()}
    return {name: measure(predictions, resamples=1000, seed=0) for name, predictions in found.items()}


def print_tables(title: str, scores: dict[str, dict[str, Any]], out: Path) -> None:
    """Print one table of all scores, and one of each class."""
    print(f"\n| {title}, {scores['tuned']['n']} tiles | " + " | ".join(MODELS.values()) + " |")
    print("|---|" + "---|" * len(MODELS))
    each = [scores[name] for name in MODELS]
    intervals = (s["intervals"]["accuracy"] for s in each)
    print("| accuracy |", *(f"{s['accuracy']:.3f} |" for s in each))
    print("| 95 % interval |", *(f"{low:.3f} to {high:.3f} |" for low, high in intervals))
    for key, name in (("balanced_accuracy", "balanced accuracy"), ("macro_f1", "macro F1"), ("macro_auc", "macro AUC")):
        print(f"| {name} |", *(f"{s[key]:.3f} |" for s in each))
    print("| calibration error before |", *(f"{s['ece_uncalibrated']:.3f} |" for s in each))
    print("| calibration error after temperature |", *(f"{s['ece']:.3f} |" for s in each))
    for source in scores["tuned"].get("per_source", {}):
        print(f"| accuracy on {source} |", *(f"{s['per_source'][source]['accuracy']:.3f} |" for s in each))
    over = json.loads((out / "metrics.json").read_text())["over_folds"]["accuracy"]
    print(
        f"\naccuracy of the fine-tuned, fold by fold: mean {over['mean']:.3f}, standard deviation {over['std']:.3f}\n"
    )
    print("| recall (F1) | tiles | " + " | ".join(MODELS.values()) + " |")
    print("|---|---|" + "---|" * len(MODELS))
    for label in CLASSES:
        parts = [s["per_class"][label] for s in each]
        print(f"| {label} | {parts[0]['n']} |", *(f"{p['recall']:.2f} ({p['f1']:.2f}) |" for p in parts))


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pathmnist", type=Path)
    parser.add_argument("crops", type=Path)
    parser.add_argument("--size-px", type=int, default=112)
    parser.add_argument("--keep", type=Path, help="folder that keeps the runs")
    options, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.keep or Path(folder)
        sets = {"pathmnist-718": [options.pathmnist], "nct-crops": [options.crops]}
        sets["both"] = [options.pathmnist, options.crops]
        print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, {' '.join(flags)}")
        for title, data in sets.items():
            print_tables(title, compare(data, root / title, options.size_px, flags), root / title)


if __name__ == "__main__":
    main()
