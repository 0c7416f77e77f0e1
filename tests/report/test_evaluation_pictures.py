"""Pictures of an evaluation, and the numbers that stand beside each."""

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from histo.learn.score.curves import RocCurve, reliability_bins, roc_curves
from histo.report.confusion import draw_confusion
from histo.report.curves import draw_curves
from histo.report.mistakes import Mistake, draw_mistakes
from histo.report.reliability import AFTER, BEFORE, draw_reliability
from histo.report.roc import draw_roc
from histo.report.text import format_confusion

CLASSES = ("ADI", "a class with a name of thirty", "TUM")


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


def rows(path: Path) -> list[dict[str, str]]:
    with path.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pixels_of(path: Path, colour: str) -> np.ndarray:
    """Row and column of every pixel of a colour."""
    with Image.open(path) as image:
        return np.argwhere((np.asarray(image.convert("RGB")) == [round(255 * part) for part in to_rgb(colour)]).all(-1))


def draw(n: int = 90) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(0, 3, n), random.dirichlet(np.ones(3), n)


def history(per_epoch: int, phases: list[str], last_loss: float = 0.5) -> tuple[list[dict], list[dict]]:
    epochs = [
        {
            "epoch": number, "phase": phase, "train_loss": 1 / number, "val_loss": 1.1 / number,
            "train_accuracy": 0.9, "val_accuracy": 0.8,
        }
        for number, phase in enumerate(phases, start=1)
    ]  # fmt: skip
    epochs[-1]["val_loss"] = last_loss
    steps = [
        {"epoch": line["epoch"], "step": i * per_epoch + j + 1, "loss": 0.5, "accuracy": 0.5, "learning_rate": 0.1}
        for i, line in enumerate(epochs)
        for j in range(per_epoch)
    ]
    return epochs, steps


@pytest.mark.parametrize(
    ("per_epoch", "phases", "last_loss"),
    [
        (1, ["head"], 0.5),
        (16, ["head"] * 2 + ["tune"] * 3, 0.5),
        (1500, ["tune"] * 3, 0.5),
        (3, ["head", "tune"], float("nan")),
    ],
)
def test_curves_of_any_run_are_drawn(tmp_path: Path, per_epoch: int, phases: list[str], last_loss: float) -> None:
    draw_curves(*history(per_epoch, phases, last_loss), len(phases), tmp_path / "curves.png")

    assert size(tmp_path / "curves.png") == (990, 935)


@pytest.mark.slow
def test_curves_show_both_parts_and_both_phases(tmp_path: Path) -> None:
    epochs, steps = history(8, ["head", "tune"])
    draw_curves(epochs, steps, 1, tmp_path / "a.png")
    changed = [epochs[0] | {"val_accuracy": 0.1}, epochs[1]]
    draw_curves(changed, steps, 1, tmp_path / "b.png")
    draw_curves([line | {"phase": "head"} for line in epochs], steps, 1, tmp_path / "c.png")
    draw_curves(epochs, steps, 2, tmp_path / "d.png")
    unvalidated = [line | {"val_loss": None, "val_accuracy": None} for line in epochs]
    draw_curves(unvalidated, steps, 2, tmp_path / "e.png")

    within = [step | {"val_loss": 0.7, "val_accuracy": 0.6} if step["step"] == 4 else step for step in steps]
    draw_curves(epochs, within, 2, tmp_path / "f.png")

    pictures = {(tmp_path / f"{name}.png").read_bytes() for name in "abcdef"}

    assert len(pictures) == 6


def test_every_point_of_a_roc_curve_stands_beside_it(tmp_path: Path) -> None:
    truth, probabilities = draw()
    curves: dict[str, list[RocCurve]] = {
        name: [curve, *([roc_curves(truth[:30], probabilities[:30], CLASSES, "fold 0")[name]] if k else [])]
        for k, (name, curve) in enumerate(roc_curves(truth, probabilities, CLASSES).items())
    }

    draw_roc(curves | {"DEB": []}, tmp_path / "roc.png")

    table = rows(tmp_path / "roc.png")
    assert size(tmp_path / "roc.png")[0] > 500
    assert {row["class"] for row in table} == set(CLASSES)
    for name, found in curves.items():
        for curve in found:
            own = [row for row in table if (row["class"], row["curve"]) == (name, curve.name)]
            np.testing.assert_allclose([float(row["true_positive_rate"]) for row in own], curve.true_positive_rate)
            np.testing.assert_allclose([float(row["threshold"]) for row in own], curve.threshold)


def test_the_intervals_of_all_and_of_each_fold_are_in_the_picture(tmp_path: Path) -> None:
    truth, probabilities = draw()
    sure, unsure = ({"per_class": {name: {"auc": [0.5 - w, 0.5 + w]} for name in CLASSES}} for w in (0.01, 0.1))

    pictures = set()
    for everything, fold in [(None, None), (sure, None), (unsure, None), (sure, sure), (sure, unsure)]:
        curves = [
            roc_curves(truth, probabilities, CLASSES, intervals=everything)["TUM"],
            roc_curves(truth[:30], probabilities[:30], CLASSES, "fold 0", fold)["TUM"],
        ]
        draw_roc({"TUM": curves}, tmp_path / "roc.png")
        pictures.add((tmp_path / "roc.png").read_bytes())

    assert len(pictures) == 5


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 9, 30])
def test_there_is_a_panel_for_each_class(tmp_path: Path, count: int) -> None:
    draw_roc({f"class {i}": [] for i in range(count)}, tmp_path / "roc.png")

    width, height = size(tmp_path / "roc.png")
    assert width * height > count * 250**2


@pytest.mark.slow
def test_a_thousand_classes_do_not_break_the_pictures(tmp_path: Path) -> None:
    random, classes = np.random.default_rng(0), [f"class {i}" for i in range(1000)]
    truth, probabilities = random.integers(0, 2, 40), random.dirichlet(np.ones(2), 40)
    curve = roc_curves(truth, probabilities, ["a", "b"])["a"]

    draw_roc({name: [curve] if i else [] for i, name in enumerate(classes)}, tmp_path / "roc.png")
    draw_confusion(np.eye(1000, dtype=int).tolist(), classes, tmp_path / "confusion.png")

    assert max(size(tmp_path / "roc.png")) < 5000
    assert max(size(tmp_path / "confusion.png")) < 2000
    assert len({row["class"] for row in rows(tmp_path / "roc.png")}) == 999
    assert len(rows(tmp_path / "confusion.png")) == 1000


def test_the_middle_of_a_long_name_is_left_out_of_a_confusion_matrix_and_not_of_its_table(tmp_path: Path) -> None:
    classes = ("x" * 200, "Y")

    draw_confusion([[1, 0], [0, 1]], classes, tmp_path / "confusion.png")

    assert max(size(tmp_path / "confusion.png")) < 1200
    assert rows(tmp_path / "confusion.png")[0]["truth"] == classes[0]


def test_the_text_of_a_confusion_matrix_of_many_classes_has_no_columns() -> None:
    lines = format_confusion(np.eye(300, dtype=int).tolist(), [f"class {number}" for number in range(300)]).splitlines()

    assert lines[0].split() == ["truth", "n", "correct"]
    assert lines[300] == "class 299  1   100.0%"


def test_the_counts_of_a_confusion_matrix_stand_beside_it(tmp_path: Path) -> None:
    matrix = [[5, 1, 0], [0, 0, 0], [2, 0, 9]]

    draw_confusion(matrix, CLASSES, tmp_path / "confusion.png")

    assert size(tmp_path / "confusion.png")[0] > 400
    table = rows(tmp_path / "confusion.png")
    assert [row["truth"] for row in table] == list(CLASSES)
    assert [[int(row[name]) for name in CLASSES] for row in table] == matrix


@pytest.mark.parametrize(
    "classes", [("mts", "normal"), ("Tumour epithelium, moderately differentiated", "NORM", "x" * 20), ("x" * 80, "y")]
)
def test_no_text_of_a_confusion_matrix_is_cut_off(tmp_path: Path, classes: tuple[str, ...]) -> None:
    draw_confusion(np.eye(len(classes), dtype=int).tolist(), classes, tmp_path / "confusion.png")

    with Image.open(tmp_path / "confusion.png") as picture:
        grey = np.asarray(picture.convert("L"))
    assert min(grey[0].min(), grey[-1].min(), grey[:, 0].min(), grey[:, -1].min()) == 255


def test_the_bins_of_a_reliability_diagram_stand_beside_it(tmp_path: Path) -> None:
    truth, probabilities = draw()
    before, after = reliability_bins(truth, probabilities), reliability_bins(truth[::-1], probabilities)

    draw_reliability(before, after, (0.2, 0.1), [1.2, 1.5], tmp_path / "two.png")
    draw_reliability(before, before, (0.2, 0.2), 1.0, tmp_path / "one.png")

    table = rows(tmp_path / "two.png")
    assert [row["which"] for row in table] == ["before"] * 15 + ["after"] * 15
    assert [int(row["n"]) for row in table] == [b.n for b in (*before, *after)]
    filled = [(row["accuracy"], b.accuracy) for row, b in zip(table, (*before, *after), strict=True)]
    assert [float(text) if text else None for text, _ in filled] == [value for _, value in filled]
    assert size(tmp_path / "two.png")[0] > 1.5 * size(tmp_path / "one.png")[0], (
        "side by side, so that neither is hidden"
    )
    for colour in (BEFORE, AFTER):
        assert len(pixels_of(tmp_path / "two.png", colour)) > 1000, colour
    assert pixels_of(tmp_path / "two.png", BEFORE)[:, 1].max() < pixels_of(tmp_path / "two.png", AFTER)[:, 1].min()


def test_a_reliability_diagram_of_a_single_case_is_drawn(tmp_path: Path) -> None:
    bins = reliability_bins(np.array([0]), np.array([[0.62, 0.38]]))

    draw_reliability(bins, bins, (0.38, 0.38), 1.0, tmp_path / "one.png")

    assert size(tmp_path / "one.png")[1] > 500


def test_mistakes_are_shown_and_listed_in_their_order(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tiles = [random.integers(0, 255, (edge, edge, 3), np.uint8) for edge in (28, 95, 224, 32, 32, 32, 32)]
    mistakes = [Mistake(f"TUM/{'x' * 60}{i}.png", "TUM", "STR, or not", 0.9 - i / 10) for i in range(7)]

    draw_mistakes(tiles, mistakes, wrong=12, total=90, target=tmp_path / "mistakes.png")

    table = rows(tmp_path / "mistakes.png")
    assert [row["case_id"] for row in table] == [mistake.case_id for mistake in mistakes]
    assert [float(row["confidence"]) for row in table] == [mistake.confidence for mistake in mistakes]
    assert [row["label"] for row in table] == ["STR, or not"] * 7
    assert size(tmp_path / "mistakes.png")[1] > 400


def test_no_mistakes_are_said_to_be_none(tmp_path: Path) -> None:
    draw_mistakes([], [], wrong=0, total=9, target=tmp_path / "none.png")

    width, height = size(tmp_path / "none.png")
    assert width > 500
    assert height < 150, "a line, and no empty canvas"
    assert rows(tmp_path / "none.png") == []


def test_a_tile_without_its_mistake_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 tiles for 0 mistakes"):
        draw_mistakes([np.zeros((8, 8, 3), np.uint8)], [], wrong=0, total=1, target=tmp_path / "x.png")


def test_names_are_never_read_as_formulas(tmp_path: Path) -> None:
    names = ["$x_$", "a$b$c"]

    draw_roc({name: [] for name in names}, tmp_path / "roc.png")
    draw_confusion([[1, 0], [0, 1]], names, tmp_path / "confusion.png")
    mistake = Mistake("$x_$.png", *names, 0.9)
    draw_mistakes([np.zeros((8, 8, 3), np.uint8)], [mistake], wrong=1, total=2, target=tmp_path / "mistakes.png")

    assert [row["truth"] for row in rows(tmp_path / "confusion.png")] == names
    assert rows(tmp_path / "mistakes.png")[0]["truth"] == "$x_$"


def test_long_names_stay_above_their_own_tile(tmp_path: Path) -> None:
    tiles = [np.zeros((96, 96, 3), np.uint8)] * 8
    names = ("ADENOCARCINOMA OF THE COLON G2", "NORMAL MUCOSA OUTSIDE OF COLON")

    draw_mistakes(tiles, [Mistake("case", *names, 0.9)] * 8, wrong=8, total=90, target=tmp_path / "mistakes.png")

    with Image.open(tmp_path / "mistakes.png") as image:
        second_row = np.asarray(image.convert("L"))[image.height // 2 :]
    in_tiles = np.flatnonzero((second_row == 0).mean(axis=0) > 0.3)
    gap = slice(*(in_tiles[np.argmax(np.diff(in_tiles))] + np.array([1, np.diff(in_tiles).max()])))
    assert (second_row[:, gap] == 255).all()


def test_temperatures_that_are_all_one_calibrate_nothing(tmp_path: Path) -> None:
    bins = reliability_bins(*draw())

    draw_reliability(bins, bins, (0.2, 0.2), 1.0, tmp_path / "one.png")
    draw_reliability(bins, bins, (0.2, 0.2), [1.0, 1.0], tmp_path / "folds.png")

    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "folds.png").read_bytes()
