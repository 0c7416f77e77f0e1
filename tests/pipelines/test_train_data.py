"""What a training run learns from, as its settings say; no Ray."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo.errors import UsageError
from histo.learn.fit.history import History
from histo.pipelines.training.data import TrainingData, gather, read_training_source
from histo.pipelines.training.job import summary
from histo.pipelines.training.spec import TrainSpec
from histo.pipelines.training.split_table import check_unchanged, read_splits, write_cases
from histo.spec.command_line import read_spec


def gathered(data: Path, run: Path, *flags: str) -> TrainingData:
    spec = read_spec(TrainSpec, ["--data", str(data), "--out", str(run), *flags], "histo train")
    return gather(spec, read_training_source(spec), History(run))


def save(path: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    np.savez(path, images=images, labels=labels)
    return path


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, 16, 16, 3), np.uint8)


def test_splits_have_the_shares_and_the_seed_that_were_asked_for(tiles: Path, tmp_path: Path) -> None:
    def splits(*flags: str) -> tuple[str | None, ...]:
        return gathered(tiles, tmp_path, *flags).splits

    assert Counter(splits("--split.val-fraction", "0.25")) == {"train": 27, "val": 9}
    assert Counter(splits("--split.val-fraction", "0.25", "--split.test-fraction", "0.5")) == {
        "train": 9, "val": 9, "test": 18,
    }  # fmt: skip
    assert splits("--seed", "1") != splits() == splits("--seed", "0")


def test_the_first_line_says_what_was_not_taken(tmp_path: Path) -> None:
    for name in ("A", "B"):
        (tmp_path / "tiles" / name).mkdir(parents=True)
        (tmp_path / "tiles" / name / "film.gif").touch()
        for number, pixels in enumerate(noise(8, seed=ord(name))):
            Image.fromarray(pixels).save(tmp_path / "tiles" / name / f"{number}.png")

    first, *_ = summary(gathered(tmp_path / "tiles", tmp_path / "run", "--split.val-fraction", "0.25")).splitlines()

    assert first == "16 images of 2 classes (and other files: 2 .gif): 12 train, 4 val"


def test_a_subset_is_drawn_before_the_split(tiles: Path, tmp_path: Path) -> None:
    data = gathered(tiles, tmp_path, "--subset", "0.5", "--split.val-fraction", "0.25")

    assert Counter(data.source.labels().tolist()) == {0: 6, 1: 6, 2: 6}
    assert len(data.splits) == 18


def test_a_test_set_is_apart_and_whole_whatever_the_subset(tiles: Path, tmp_path: Path) -> None:
    held_out = save(tmp_path / "held_out.npz", noise(7), np.arange(7) % 3)

    data = gathered(tiles, tmp_path, "--test", str(held_out), "--subset", "18")

    tests = [case.source for case, split in zip(data.source.cases, data.splits, strict=True) if split == "test"]
    assert tests == ["test:held_out.npz"] * 7
    assert len(data.splits) == 25


def test_an_image_in_training_and_in_the_test_set_is_an_error_unless_it_is_allowed(tiles: Path, tmp_path: Path) -> None:
    with np.load(tiles) as known:
        copy = save(tmp_path / "copy.npz", known["images"][:3], known["labels"][:3])

    with pytest.raises(UsageError, match=r"tiles\.npz#images/0"):
        gathered(tiles, tmp_path, "--test", str(copy))
    allowed = gathered(tiles, tmp_path, "--test", str(copy), "--split.allow-leaks")

    assert any("tiles.npz#images/0" in note for note in allowed.notes)


def test_few_broken_images_are_left_out_and_named(tmp_path: Path) -> None:
    for number, pixels in enumerate(noise(12)):
        folder = tmp_path / "tiles" / f"{'AB'[number % 2]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "tiles" / "A" / "bad.png").write_bytes(b"no picture")

    with pytest.raises(UsageError, match=r"bad\.png"):
        gathered(tmp_path / "tiles", tmp_path / "run")
    data = gathered(tmp_path / "tiles", tmp_path / "run", "--max-broken", "0.1")

    assert Counter(data.splits) == {"train": 9, "val": 3, None: 1}
    assert any("bad.png" in note for note in data.notes)


def test_the_split_is_read_back_and_other_images_are_refused(tiles: Path, tmp_path: Path) -> None:
    data = gathered(tiles, tmp_path)
    write_cases(tmp_path, data.source, data.found, data.splits)
    with np.load(tiles) as known:
        images, labels = known["images"], known["labels"]
    images = images.copy()
    images[5] += 1
    (tmp_path / "other").mkdir()
    other = gathered(save(tmp_path / "other" / "tiles.npz", images, labels), tmp_path / "none")
    fewer = gathered(save(tmp_path / "other" / "tiles.npz", images[:30], labels[:30]), tmp_path / "none")

    assert read_splits(tmp_path, data.source) == data.splits
    check_unchanged(tmp_path, data.source, data.found)
    with pytest.raises(UsageError, match="not those that the run began with"):
        check_unchanged(tmp_path, other.source, other.found)
    with pytest.raises(UsageError, match="30 images, 36 before"):
        read_splits(tmp_path, fewer.source)


def test_a_class_that_cannot_be_learned_is_refused(tiles: Path, tmp_path: Path) -> None:
    from_one = save(tmp_path / "from_one.npz", noise(20), np.arange(20) % 2 + 1)
    numbered_high = save(tmp_path / "high.npz", noise(20), np.arange(20) % 2 * 10**6)

    with pytest.raises(UsageError, match="class NORM: none of its images can be trained on"):
        gathered(tiles, tmp_path, "--classes", "TUM,STR,MUS,NORM")
    with pytest.raises(UsageError, match="class 0: none of its images can be trained on"):
        gathered(from_one, tmp_path)
    with pytest.raises(UsageError, match="label 1000000: numbered labels count the classes from 0"):
        gathered(numbered_high, tmp_path)


@pytest.mark.parametrize(
    ("flags", "mpps"),
    [
        ("--mpp 4", [4, 4]),
        ("--mpp 4,1.5", [4, 1.5]),
        ("--mpp 4 --test T", [4, 4, 4]),
        ("--mpp 4,1.5 --test T,U --test-mpp 2", [4, 1.5, 2, 2]),
        ("--mpp 4 --test T,U --test-mpp 2,3", [4, 4, 2, 3]),
        ("--test T", None),
    ],
)
def test_every_source_has_the_resolution_that_was_given_for_it(flags: str, mpps: list[float] | None) -> None:
    assert read_spec(TrainSpec, [*["--data", "A,B", "--out", "O"], *flags.split()], "histo train").mpps == mpps


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--mpp 4,1,1", "--mpp: 3 values for 2 sources of --data; give one, or one for each"),
        ("--mpp 4 --test T --test-mpp 2,3", "--test-mpp: 2 values for 1 sources of --test"),
        ("--mpp 4,1 --test T", "give that of the images in --test with --test-mpp"),
        ("--mpp 4 --test-mpp 2", "give both, too"),
        ("--test T --test-mpp 2", "give both, too"),
    ],
)
def test_resolutions_that_fit_no_sources_are_refused(flags: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_spec(TrainSpec, [*["--data", "A,B", "--out", "O"], *flags.split()], "histo train")
