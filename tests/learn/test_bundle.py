import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from histo.errors import UsageError
from histo.learn.bundle import MODEL_JSON, WEIGHTS, bundle_hash, hash_file, read_bundle
from histo.learn.fit.checkpoint import Position, read_state, write_checkpoint
from histo.learn.network.model import load_network
from histo.learn.predict.torch_predictor import TorchPredictor


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


BAD_TILES = [
    ({"mpp": bad}, "mpp") for bad in (0, -0.5, float("nan"), float("inf"), -float("inf"), 1e30, 1e-300, "wide", [0.5])
] + [
    ({"mean": [float("nan"), 127, 127]}, "mean.0"),
    ({"mean": [127, 127, -1e9]}, "mean.2"),
    ({"mean": [127, 127]}, "mean"),
    ({"std": [128, 0, 128]}, "std.1"),
    ({"std": [128, -1, 128]}, "std.1"),
    ({"std": [float("inf"), 128, 128]}, "std.0"),
    ({"size_px": 1e30}, "size_px"),
    ({"size_px": 0}, "size_px"),
    ({"size_px": 10**9}, "size_px"),
    ({"kernel": "cubic"}, "kernel"),
    ({"unknown\x1b[31m": 1}, "unknown"),
]


@pytest.mark.parametrize(("change", "place"), BAD_TILES)
def test_an_input_out_of_bounds_is_one_line_that_names_it(copy: Path, change: dict[str, Any], place: str) -> None:
    document = json.loads((copy / MODEL_JSON).read_text())
    edit(copy, input=document["input"] | change)

    with pytest.raises(UsageError, match=rf"model\.json: input\.tiles\.{re.escape(place)}") as caught:
        read_bundle(copy)

    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": 1e-300}, "temperature"),
        ({"classes": ["MUS", "", "TUM"]}, "classes.1"),
        ({"classes": ["MUS", " \t", "TUM"]}, "classes.1"),
        ({"classes": ["MUS", "a\x1b[2Jb", "TUM"]}, "classes.1"),
        ({"classes": ["MUS", "a\nb", "TUM"]}, "classes.1"),
        ({"classes": ["MUS", "a\u202eb", "TUM"]}, "classes.1"),
        ({"classes": ["MUS", "MUS", "TUM"]}, "two or more different names"),
        ({"classes": ["MUS", "T" * 1000, "TUM"]}, "classes.1"),
        ({"architecture": {"backbone": "hf-hub:timm/resnet18.a1_in1k"}}, "architecture.backbone"),
        ({"architecture": {"backbone": "local-dir:/tmp"}}, "architecture.backbone"),
        ({"architecture": {"backbone": "/tmp/resnet18"}}, "architecture.backbone"),
        ({"architecture": {"backbone": "resnet18\n"}}, "architecture.backbone"),
        ({"architecture": {"backbone": ""}}, "architecture.backbone"),
        ({"input": None}, "input"),
        ({"input": [1]}, "input"),
        ({"schema_version": 2}, "schema_version"),
    ],
)
def test_a_document_out_of_bounds_is_one_line_that_names_it(copy: Path, change: dict[str, Any], place: str) -> None:
    edit(copy, **change)

    with pytest.raises(UsageError, match=rf"model\.json: .*{re.escape(place)}") as caught:
        read_bundle(copy)

    assert str(caught.value).isprintable()


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"classes": "\x00"}'])
def test_a_document_of_another_shape_is_one_line(copy: Path, content: bytes) -> None:
    (copy / MODEL_JSON).write_bytes(content)

    with pytest.raises(UsageError, match=r"model\.json: document: ") as caught:
        read_bundle(copy)

    assert str(caught.value).isprintable()


@given(cut=st.floats(0, 1, exclude_max=True))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_document_cut_anywhere_is_one_line(copy: Path, cut: float) -> None:
    content = (copy / MODEL_JSON).read_text().rstrip().encode()
    try:
        (copy / MODEL_JSON).write_bytes(content[: int(cut * len(content))])
        with pytest.raises(UsageError, match=r"model\.json: document: "):
            read_bundle(copy)
    finally:
        (copy / MODEL_JSON).write_bytes(content)


def test_a_huge_document_is_not_read(copy: Path) -> None:
    with (copy / MODEL_JSON).open("r+b") as file:
        file.truncate(2**40)

    with pytest.raises(UsageError, match=r"model\.json: is larger than 64 MiB"):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["bundle", "layer_scale"])
def test_a_tensor_that_the_network_does_not_know_is_refused(copy: Path, name: str) -> None:
    save_file(load_file(copy / WEIGHTS) | {f"backbone.{name}": torch.ones(1)}, copy / WEIGHTS)
    edit(copy, weights_sha256=hash_file(copy / WEIGHTS))

    with pytest.raises(UsageError, match=rf"tensor backbone\.{name} is unknown"):
        load_network(copy, read_bundle(copy))


@pytest.mark.parametrize("name", ["resnet19", "resnet18.nobodys", "r3d_18"])
def test_a_network_that_is_not_there_is_told_by_its_document(copy: Path, name: str) -> None:
    edit(copy, architecture={"backbone": name})

    with pytest.raises(UsageError, match=rf"model\.json: architecture\.backbone {name}: "):
        load_network(copy, read_bundle(copy))


@pytest.mark.parametrize("shape", [(), (3,), (3, 4, 1)])
def test_a_head_of_another_shape_is_refused(copy: Path, shape: tuple[int, ...]) -> None:
    save_file({"head.linear.weight": torch.zeros(shape)}, copy / WEIGHTS)
    edit(copy, weights_sha256=hash_file(copy / WEIGHTS))

    with pytest.raises(UsageError, match="outputs"):
        read_bundle(copy)


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
