import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from histo.errors import UsageError
from histo.learn.bundle import MODEL_JSON, WEIGHTS, bundle_hash, read_bundle
from histo.learn.checkpoint import Position, read_state, write_checkpoint
from histo.learn.model import load_network
from histo.learn.predict import TorchPredictor


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "model"))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / MODEL_JSON
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "code", "pipe", "other"])
def test_a_damaged_state_is_one_line_that_never_recommends_to_run_it(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"position": {}, "optimizer": {}}, path)
    content = path.read_bytes()
    path.unlink()
    match damage:
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.touch()
        case "code":
            torch.save({"position": print}, path)
        case "pipe":
            os.mkfifo(path)
        case "other":
            path.write_bytes(content)

    with pytest.raises(UsageError, match=r"state\.pt: missing or damaged") as caught:
        read_state(tmp_path)

    assert "weights_only" not in str(caught.value)


def test_a_bundle_reads_back_as_the_same_network(bundle: Path, tmp_path: Path) -> None:
    description = read_bundle(bundle)
    network = load_network(bundle, description)
    optimizer = torch.optim.AdamW(network.head.parameters())

    position = Position("tune", epoch=1, step=20, seed=3)
    write_checkpoint(tmp_path / "epoch_0001", network, description, optimizer, position, np.zeros((1, 3)))

    assert (tmp_path / "epoch_0001" / WEIGHTS).read_bytes() == (bundle / WEIGHTS).read_bytes()
    assert read_bundle(tmp_path / "epoch_0001") == description
    assert read_state(tmp_path / "epoch_0001")[0] == position
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_0001"]


def test_probabilities_sum_to_one_and_do_not_depend_on_the_batch(bundle: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), np.uint8)
    tiles = (noise * np.linspace(0.1, 1, 5)[:, None, None, None]).astype(np.uint8)

    together, alone = TorchPredictor(bundle, batch_size=5)(tiles), TorchPredictor(bundle, batch_size=1)(tiles)

    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.ptp(together, axis=0).max() > 0.01, "the tiles must differ, or equality says nothing"


def test_the_temperature_flattens_the_probabilities(bundle: Path, copy: Path) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    edit(copy, temperature=4.0)

    sharp, flat = np.log(TorchPredictor(bundle)(tiles)), np.log(TorchPredictor(copy)(tiles))

    np.testing.assert_allclose((flat - flat[:, :1]) * 4, sharp - sharp[:, :1], atol=1e-3)


def test_tiles_of_another_size_are_a_callers_mistake(bundle: Path) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 tiles \(n, 224, 224, 3\)"):
        TorchPredictor(bundle)(np.zeros((1, 96, 96, 3), np.uint8))


def test_a_network_that_gives_no_finite_numbers_is_an_error(bundle: Path) -> None:
    predict = TorchPredictor(bundle)
    torch.nn.init.constant_(predict._network.head.linear.bias, float("nan"))

    with pytest.raises(FloatingPointError, match="not finite"):
        predict(np.zeros((1, 224, 224, 3), np.uint8))


def test_no_tiles_are_no_probabilities(bundle: Path) -> None:
    assert TorchPredictor(bundle)(np.zeros((0, 224, 224, 3), np.uint8)).shape == (0, 3)


def test_classes_that_do_not_fit_the_weights_are_refused(copy: Path) -> None:
    edit(copy, classes=["MUS", "TUM"])

    with pytest.raises(UsageError, match=r"the weights have 3 outputs, but model\.json names 2 classes"):
        read_bundle(copy)


def test_changed_weights_are_refused(copy: Path) -> None:
    content = bytearray((copy / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (copy / WEIGHTS).write_bytes(content)

    with pytest.raises(UsageError, match="sha256"):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["A", "A", "B"]}, "classes must be two or more different names"),
        ({"schema_version": 9}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_a_document_that_is_wrong_is_refused_by_field(copy: Path, changes: dict[str, Any], message: str) -> None:
    edit(copy, **changes)

    with pytest.raises(UsageError, match=message):
        read_bundle(copy)


@pytest.mark.parametrize("name", [MODEL_JSON, WEIGHTS])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()

    with pytest.raises(UsageError, match=f"{name} is missing"):
        read_bundle(copy)


def test_the_hash_changes_with_the_document_and_not_with_the_place(bundle: Path, copy: Path) -> None:
    assert bundle_hash(bundle) == bundle_hash(copy)

    edit(copy, temperature=2.0)

    assert bundle_hash(bundle) != bundle_hash(copy)
