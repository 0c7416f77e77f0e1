"""What both networks for volumes reach on fabricated heads: `python benchmarks/volumes.py --shuffles 5`.

Studies (three series each, in one class with lesions) are fabricated, prepared, and cross-validated with
configs/crossval/volumes-2d.yaml and volumes-3d.yaml at a size that a CPU bears. Then the same with labels that are
dealt anew among the patients: what is not chance there is a leak. Prints the table of docs/volumes.md.
"""

import argparse
import csv
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from from_tests import fabricate_studies

from histo.cli import main as histo

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "crossval"
SERIES = "*t1*,*t2*,*flair*"


def main() -> None:
    """Print a table of the true labels, and one of the shuffled ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["2d", "3d"])
    parser.add_argument("--studies", type=int, default=60)
    parser.add_argument("--contrast", type=float, default=3.0)
    parser.add_argument("--size-px", type=int, default=64)
    parser.add_argument("--shuffles", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        volumes = prepare(work, options.studies, options.contrast, options.size_px)
        print(
            "| network | labels | AUC of all folds (95 %) | AUC of each fold | s |\n|---|---|---|---|---|", flush=True
        )
        for network in options.networks:
            print_line(network, "true", *cross_validate(network, volumes, work / "out", options.size_px))
            areas = []
            for seed in range(options.shuffles):
                shuffled = shuffle_labels(volumes, seed)
                metrics, seconds = cross_validate(network, shuffled, work / "out", options.size_px)
                print_line(network, f"shuffle {seed}", metrics, seconds)
                areas.append(metrics["macro_auc"])
            if areas:
                print(f"| {network} | mean of {len(areas)} shuffles | {fmean(areas):.3f} | | |", flush=True)


def prepare(work: Path, studies: int, contrast: float, size_px: int) -> Path:
    """Fabricate studies, and return the folder of their volumes."""
    fabricate_studies(work / "studies", studies, seed=0, in_plane_px=128, lesion_contrast=contrast)
    preparation = ["--preparation.series", SERIES, "--preparation.size-px", str(size_px)]
    run(["prepare", "volumes", "--studies", str(work / "studies"), "--out", str(work / "prepared"), *preparation])
    return work / "prepared" / "volumes"


def cross_validate(network: str, data: Path, out: Path, size_px: int) -> tuple[dict[str, Any], float]:
    """Return what a cross-validation measured, and the seconds that it took."""
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    config = CONFIGS / f"volumes-{network}.yaml"
    run(["crossval", "--config", config, "--data", data, "--out", out, "--size-px", size_px])
    return json.loads((out / "metrics.json").read_text()), time.perf_counter() - start


def shuffle_labels(volumes: Path, seed: int) -> Path:
    """Deal the labels anew among the studies, each of which is of a patient of its own; returns the manifest."""
    with (volumes / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = np.random.default_rng(seed).permutation([row["label"] for row in rows])
    shuffled = volumes / f"shuffle_{seed}.csv"
    with shuffled.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(row | {"label": label} for row, label in zip(rows, labels, strict=True))
    return shuffled


def run(words: Sequence[object]) -> None:
    """Run a job of histo; stop if it fails."""
    code = histo([str(word) for word in words])
    if code:
        raise SystemExit(code)


def print_line(network: str, labels: str, metrics: dict[str, Any], seconds: float) -> None:
    """Print a row of the table."""
    low, high = metrics["intervals"]["macro_auc"]
    folds = ", ".join(f"{fold['macro_auc']:.2f}" for fold in metrics["folds"])
    area = f"{metrics['macro_auc']:.3f} ({low:.3f} to {high:.3f})"
    print(f"| {network} | {labels} | {area} | {folds} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
