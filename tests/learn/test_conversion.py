"""A bundle's converted form gives the probabilities of the bundle, or is not used."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from histo.demo.bundle import random_bundle
from histo.errors import UsageError
from histo.learn import conversion
from histo.learn.array_layout import TILES
from histo.learn.bundle import MODEL_JSON, WEIGHTS, hash_file
from histo.learn.conversion import convert, ensure_form
from histo.learn.data.subset import evenly
from histo.learn.openvino import core
from histo.learn.openvino.core import has_bf16
from histo.learn.openvino.record import CONSTANTS, FOLDER, GRAPH, RECORD, Agreement, read_conversion
from histo.learn.openvino.trace import NotConvertibleError, probes
from histo.learn.predict.load import load_predictor
from histo.learn.predict.precision import require_precision
from histo.learn.predict.torch_predictor import TorchPredictor
from histo.resample import Pixels

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def noise(count: int, size_px: int) -> Pixels:
    return np.random.default_rng(1).integers(0, 256, (count, size_px, size_px, 3), np.uint8)


def agreement(tiles: int = 1000, same_class: float = 1.0, mean_difference: float = 0.001) -> dict[str, Any]:
    return Agreement(
        tiles=tiles, same_class=same_class, mean_difference=mean_difference, max_difference=0.1
    ).model_dump()


@pytest.mark.parametrize(
    ("backbone", "size_px"), [("tf_efficientnet_lite0", 224), ("resnet18", 96), ("test_efficientnet", 96)]
)
def test_the_converted_form_gives_the_probabilities_of_torch(backbone: str, size_px: int, tmp_path: Path) -> None:
    bundle = random_bundle(tmp_path, backbone, size_px)
    tiles = noise(11, size_px)

    convert(bundle, threads=2)

    predict = load_predictor(bundle, threads=2)
    assert predict.runtime == "openvino"
    np.testing.assert_allclose(predict(tiles), TorchPredictor(bundle)(tiles), atol=1e-4, rtol=0)


def test_a_bundle_is_converted_once(copy: Path) -> None:
    before = (copy / FOLDER / RECORD).stat().st_mtime_ns

    form = ensure_form(copy)

    assert form.folder == copy / FOLDER
    assert (copy / FOLDER / RECORD).stat().st_mtime_ns == before


@pytest.mark.parametrize("name", [GRAPH, CONSTANTS, RECORD])
def test_a_damaged_form_is_not_used_and_can_be_made_again(copy: Path, name: str) -> None:
    path = copy / FOLDER / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    assert load_predictor(copy).runtime == "torch"

    assert ensure_form(copy).folder == copy / FOLDER
    assert load_predictor(copy).runtime == "openvino"


def test_a_form_of_another_bundle_is_not_used(copy: Path) -> None:
    edit(copy / MODEL_JSON, temperature=2.0)

    assert load_predictor(copy).runtime == "torch"


@pytest.mark.parametrize("names", [(GRAPH, CONSTANTS), (CONSTANTS,)])
def test_a_form_of_other_weights_is_not_used_whatever_the_record_beside_it_says(
    copy: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    other = Path(shutil.copytree(copy, tmp_path / "other"))
    weights = load_file(other / WEIGHTS)
    save_file(weights | {"head.linear.weight": -weights["head.linear.weight"]}, other / WEIGHTS)
    edit(other / MODEL_JSON, weights_sha256=hash_file(other / WEIGHTS))
    convert(other)

    for name in names:
        shutil.copyfile(other / FOLDER / name, copy / FOLDER / name)
    form = copy / FOLDER
    edit(form / RECORD, graph_sha256=hash_file(form / GRAPH), constants_sha256=hash_file(form / CONSTANTS))

    assert load_predictor(copy).runtime == "torch"
    assert load_predictor(other).runtime == "openvino"


def test_a_form_that_is_a_pipe_is_not_waited_for(copy: Path) -> None:
    (copy / FOLDER / RECORD).unlink()
    os.mkfifo(copy / FOLDER / RECORD)

    assert load_predictor(copy).runtime == "torch"


def test_a_form_of_another_converter_is_not_used(copy: Path) -> None:
    edit(copy / FOLDER / RECORD, converter=0)

    assert load_predictor(copy).runtime == "torch"


def test_a_bundle_that_cannot_be_written_has_its_form_elsewhere(
    bare_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, bundle = Path.mkdir, Path(shutil.copytree(bare_bundle, tmp_path / "model"))

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if bundle in path.parents:
            raise OSError(30, "Read-only file system")
        make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)

    alone, form = ensure_form(bundle), ensure_form(bundle, tmp_path / "out")

    assert (alone.folder, alone.trouble) == (None, f"{bundle / FOLDER}: cannot be written (Read-only file system)")
    assert form.folder == tmp_path / "out" / FOLDER
    assert load_predictor(bundle, openvino=form.folder).runtime == "openvino"
    assert sorted(path.name for path in bundle.iterdir()) == [MODEL_JSON, WEIGHTS]


def test_a_form_that_gives_other_probabilities_is_refused_and_leaves_nothing(
    bare_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Path(shutil.copytree(bare_bundle, tmp_path / "model"))
    monkeypatch.setattr(conversion, "MOST_DIFFERENCE", -1.0)

    with pytest.raises(NotConvertibleError, match="OpenVINO gives other probabilities than torch"):
        convert(bundle)

    assert sorted(path.name for path in bundle.iterdir()) == [MODEL_JSON, WEIGHTS]


def test_a_network_without_finite_numbers_is_not_converted(bare_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(bare_bundle, tmp_path / "model"))
    tensors = load_file(bundle / WEIGHTS)
    tensors["head.linear.bias"] = torch.full_like(tensors["head.linear.bias"], torch.nan)
    save_file(tensors, bundle / WEIGHTS)
    edit(bundle / MODEL_JSON, weights_sha256=hash_file(bundle / WEIGHTS))

    form = ensure_form(bundle)

    assert form.folder is None
    assert "not finite; train it again" in str(form.trouble)
    with pytest.raises(FloatingPointError, match="not finite"):
        load_predictor(bundle)(noise(1, 96))


def test_running_a_converted_bundle_loads_no_torch(tiny_bundle: Path) -> None:
    script = (
        "import sys, numpy\n"
        "from pathlib import Path\n"
        "from histo.learn.predict.load import load_predictor\n"
        "predict = load_predictor(Path(sys.argv[1]))\n"
        "assert predict.runtime == 'openvino'\n"
        "assert predict(numpy.zeros((3, 96, 96, 3), numpy.uint8)).shape == (3, 3)\n"
        "loaded = {'torch', 'torchvision', 'timm'} & sys.modules.keys()\n"
        "assert not loaded, loaded\n"
    )

    subprocess.run([sys.executable, "-c", script, tiny_bundle], check=True)


def test_bf16_is_refused_where_its_agreement_is_unmeasured(copy: Path) -> None:
    with pytest.raises(UsageError, match="was not measured; use float32, or measure it with `histo convert --model"):
        load_predictor(copy, precision="bf16")


@pytest.mark.parametrize("has", [False, True])
def test_where_bf16_can_be_measured_is_said(copy: Path, monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(core, "has_bf16", lambda: has)

    for measured in (None, agreement(same_class=0.5)):
        edit(copy / FOLDER / RECORD, bf16=measured)
        with pytest.raises(UsageError, match="use float32, or measure") as caught:
            load_predictor(copy, precision="bf16")
        assert ("on another machine, since this CPU has no bfloat16" in str(caught.value)) != has


@pytest.mark.parametrize(
    "measured", [agreement(tiles=99), agreement(same_class=0.989), agreement(mean_difference=0.011)]
)
def test_bf16_is_refused_where_it_agrees_too_little(copy: Path, measured: dict[str, Any]) -> None:
    edit(copy / FOLDER / RECORD, bf16=measured)

    with pytest.raises(UsageError, match=r"agrees too little with float32: same class on .* use float32"):
        load_predictor(copy, precision="bf16")


def test_float32_is_never_refused(copy: Path) -> None:
    require_precision("float32", None, copy)


@pytest.mark.skipif(not has_bf16(), reason="this CPU has no bfloat16")
def test_bf16_runs_where_it_agrees(copy: Path) -> None:
    measured = convert(copy, tiles=noise(100, 96), threads=2).bf16

    assert measured is not None
    assert measured.enough
    assert read_conversion(copy / FOLDER, copy) is not None
    exact, rough = (load_predictor(copy, precision=name) for name in ("float32", "bf16"))
    difference = np.abs(exact(noise(100, 96)) - rough(noise(100, 96))).max()
    assert 0 < difference <= measured.max_difference * 1.01
    assert rough.precision == "bf16"


def test_the_probes_differ_and_are_always_the_same() -> None:
    assert probes(TILES, 48).shape == (8, 48, 48, 3)
    assert len(np.unique(probes(TILES, 48).reshape(8, -1), axis=0)) == 8
    np.testing.assert_array_equal(probes(TILES, 48), probes(TILES, 48))


def test_what_is_evenly_taken_has_the_first_and_the_last() -> None:
    assert evenly(np.arange(1001), 11).tolist() == list(range(0, 1001, 100))


def test_a_form_that_another_openvino_wrote_counts_as_not_there(copy: Path) -> None:
    edit(copy / FOLDER / RECORD, openvino="2020.1")

    assert read_conversion(copy / FOLDER, copy) is None


def test_converting_again_without_tiles_keeps_what_was_measured(copy: Path) -> None:
    edit(copy / FOLDER / RECORD, bf16=agreement())

    again = convert(copy)

    assert again.bf16 == Agreement(**agreement())


def test_a_network_that_crashes_openvino_is_not_converted_and_harms_nothing(tmp_path: Path) -> None:
    folder = random_bundle(tmp_path, "resnet50_gn", size_px=64)

    with pytest.raises(NotConvertibleError, match="OpenVINO fails to compile resnet50_gn"):
        convert(folder)

    assert load_predictor(folder).runtime == "torch"
