"""Weights of a file: all of them are used, or the file is refused by name; nothing in it is run."""

import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from histo.errors import UsageError
from histo.learn.array_layout import VolumeLayout
from histo.learn.network.backbones import create_backbone, load_pretrained
from histo.learn.network.weights import read_tensors

VIT = "vit_tiny_patch16_224"


def saved(folder: Path, tensors: dict[str, torch.Tensor], name: str = "w.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / name)
    return folder / name


def load(name: str, path: Path) -> Any:
    return load_pretrained(create_backbone(name), name, path)


def test_a_vision_transformer_with_layer_scale_is_not_taken_for_the_plain_one(tmp_path: Path) -> None:
    scaled = timm.create_model(VIT, num_classes=0, init_values=1e-5)

    with pytest.raises(UsageError, match=r"tensor blocks\.0\.ls1\.gamma \(and 23 others\) is unknown to this network"):
        load(VIT, saved(tmp_path, scaled.state_dict()))


@pytest.mark.parametrize("name", [VIT, "resnet18", "deit_tiny_distilled_patch16_224", "convnext_atto"])
def test_a_classifier_is_left_and_nothing_else(name: str, tmp_path: Path) -> None:
    whole = timm.create_model(name).state_dict()

    load(name, saved(tmp_path, whole))

    with pytest.raises(UsageError, match="tensor extra is unknown"):
        load(name, saved(tmp_path, whole | {"extra": torch.zeros(1)}))


def test_the_classifier_of_a_network_for_video_is_left(tmp_path: Path) -> None:
    backbone = create_backbone("r3d_18", VolumeLayout(series=3, slices=4))
    classifier = {"fc.weight": torch.zeros(400, 512), "fc.bias": torch.zeros(400)}

    load_pretrained(backbone, "r3d_18", saved(tmp_path, backbone.state_dict() | classifier))


@pytest.mark.slow
def test_what_a_network_computes_itself_may_lie_beside_its_weights(tmp_path: Path) -> None:
    swin = create_backbone("swin_tiny_patch4_window7_224")
    index = "layers.0.blocks.0.attn.relative_position_index"
    own = dict(swin.named_buffers())[index].clone()

    load("swin_tiny_patch4_window7_224", saved(tmp_path, swin.state_dict() | {index: own}))

    with pytest.raises(UsageError, match="relative_position_index is unknown"):
        load("swin_tiny_patch4_window7_224", saved(tmp_path, swin.state_dict() | {index: own + 1}))


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("must-not-exist",)


@pytest.mark.parametrize("content", ["pickle", "torch", "script", "empty", "wrapped", "list", "text"])
def test_a_refused_file_of_torch_is_never_recommended_for_unsafe_loading(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    match content:
        case "pickle":
            path.write_bytes(pickle.dumps({"a": _Runs()}))
        case "torch":
            torch.save({"a": _Runs()}, path)
        case "script":
            with warnings.catch_warnings(action="ignore"):
                torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
        case "empty":
            path.touch()
        case "wrapped":
            torch.save({"state_dict": create_backbone("resnet18").state_dict()}, path)
        case "list":
            torch.save([torch.zeros(1)], path)
        case "text":
            path.write_text("no weights\n" * 100)

    with pytest.raises(UsageError, match=r"--network\.weights .*state dictionary") as caught:
        load("resnet18", path)

    assert not [word for word in ("weights_only", "unsafe", "trust", "\n") if word in str(caught.value)]
    assert not (tmp_path / "must-not-exist").exists()


def test_weights_that_are_not_finite_or_not_plain_are_refused(tmp_path: Path) -> None:
    tensors = create_backbone("resnet18").state_dict()

    with pytest.raises(UsageError, match=r"tensor conv1\.weight has values that are not finite"):
        load("resnet18", saved(tmp_path, tensors | {"conv1.weight": tensors["conv1.weight"] * float("nan")}))
    torch.save(tensors | {"conv1.weight": tensors["conv1.weight"].to_sparse()}, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"tensor conv1\.weight is not of plain real numbers"):
        load("resnet18", tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_pipe_a_device_and_a_folder_are_no_weights(suffix: str, tmp_path: Path) -> None:
    pipe, device, folder = (tmp_path / f"{name}{suffix}" for name in ("pipe", "device", "folder"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    folder.mkdir()

    for path in (pipe, device, folder, tmp_path / f"missing{suffix}"):
        with pytest.raises(UsageError, match=r"--network\.weights .*: (is a|No such)"):
            load("resnet18", path)


def test_damaged_safetensors_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")

    with pytest.raises(UsageError, match="not a safetensors file"):
        load("resnet18", tmp_path / "w.safetensors")


@pytest.mark.parametrize("beside", ["of_now", "of_before"])
def test_normalisation_is_that_of_the_weights_own_configuration(beside: str, tmp_path: Path) -> None:
    path = saved(tmp_path, create_backbone(VIT).state_dict())
    values = {"mean": [0.25, 0.5, 0.75], "std": [0.1, 0.2, 0.3]}
    document = {"pretrained_cfg": values} if beside == "of_now" else values
    (tmp_path / "config.json").write_text(json.dumps({"architecture": f"{VIT}.augreg"} | document))

    found = load(VIT, path)

    assert found.mean == pytest.approx((63.75, 127.5, 191.25))
    assert found.std == pytest.approx((25.5, 51, 76.5))


def test_a_configuration_that_is_not_timms_says_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path, create_backbone(VIT).state_dict())
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')

    assert load(VIT, path).mean == pytest.approx((127.5,) * 3)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"architecture": "resnet18"}', "are of 'resnet18', not vit_tiny"),
        (f'{{"architecture": "{VIT}", "model_args": {{"init_values": 1e-5}}}}', "in another way"),
        (f'{{"architecture": "{VIT}", "mean": [NaN, 0, 0], "std": [1, 1, 1]}}', "mean"),
        (f'{{"architecture": "{VIT}", "mean": [0, 0, 0], "std": [0, 1, 1]}}', "std"),
        (f'{{"architecture": "{VIT}", "mean": [0, 0, 0]}}', "std: Field required"),
        ("{", "not readable"),
        ("[" * 100_000, "not readable"),
    ],
)
def test_a_configuration_that_does_not_fit_is_one_line(document: str, message: str, tmp_path: Path) -> None:
    path = saved(tmp_path, create_backbone(VIT).state_dict())
    (tmp_path / "config.json").write_text(document)

    with pytest.raises(UsageError, match=message) as caught:
        load(VIT, path)

    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["local-dir:/tmp", "hf-hub:timm/resnet18.a1_in1k", "hf_hub:a/b", "timm/resnet18", "/tmp", "", "resnet18\n"]
)
def test_a_name_that_leads_elsewhere_is_one_line(name: str) -> None:
    with pytest.raises(UsageError, match=r"not a name of timm's; give a plain one"):
        create_backbone(name)


def test_an_unknown_tag_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"--network\.backbone resnet18\.nobodys: "):
        create_backbone("resnet18.nobodys")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).as_strided((10**13,), (0,)),
        torch.zeros(3, dtype=torch.float8_e4m3fn),
        torch.zeros(2, device="meta"),
    ],
    ids=["endless", "float8", "meta"],
)
def test_tensors_that_are_not_what_they_say_are_one_line(tensor: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"a": tensor}, tmp_path / "w.pth")

    with pytest.raises(UsageError, match="tensor a is not of plain real numbers; convert the weights"):
        read_tensors(tmp_path / "w.pth")
