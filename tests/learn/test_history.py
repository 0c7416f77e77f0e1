import json
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from histo import store
from histo.errors import UsageError
from histo.learn.bundle import Architecture, Bundle, TileInput, find_bundle, read_bundle
from histo.learn.epoch_index import EpochIndex, write_index
from histo.learn.fit.checkpoint import read_state, read_validation, write_epoch
from histo.learn.fit.history import History
from histo.learn.fit.loop import Epoch, Step
from histo.learn.network.backbones import Normalisation
from histo.learn.network.model import Network
from histo.report.curves import draw_curves

BUNDLE = Bundle(
    architecture=Architecture(backbone="resnet18"),
    classes=("A", "B"),
    input=TileInput(size_px=8, mpp=None, mean=(0.0,) * 3, std=(1.0,) * 3),
    origin={},
    weights_sha256="",
)


class Nothing(torch.nn.Module):
    num_features = 1


def record(history: History, *losses: float) -> None:
    """Let epochs with these validation losses end."""
    network = Network(Nothing(), Normalisation((0.0,) * 3, (1.0,) * 3), classes=2, dropout=0)
    for loss in losses:
        number = history.last + 1
        steps = tuple(Step(number, 2 * number - 1 + i, loss, 0.5, 0.1) for i in range(2))
        epoch = Epoch(number, "head", 1.0, 0.5, loss, 0.5, 0.1, 10.0, 1.0, 1.5, steps, np.full((3, 2), loss))
        write_epoch(history, epoch, network, torch.optim.AdamW(network.parameters()), BUNDLE, seed=7)


def kept(run: Path) -> list[int]:
    return [int(path.name[6:]) for path in sorted((run / "checkpoints").glob("epoch_*"))]


def everything(run: Path) -> dict[str, list[str]]:
    files = {name: (run / name).read_text().splitlines() for name in ("metrics.jsonl", "steps.jsonl")}
    return files | {"checkpoints": [str(number) for number in kept(run)]}


def test_an_epoch_is_recorded_with_metrics_steps_and_a_checkpoint(tmp_path: Path) -> None:
    record(history := History(tmp_path), 0.5)

    (metrics,) = history.past()
    steps = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert (metrics["epoch"], metrics["val_loss"], "steps" in metrics) == (1, 0.5, False)
    assert [step["step"] for step in steps] == [1, 2]
    assert asdict(read_state(history.checkpoint(1))[0]) == {"phase": "head", "epoch": 1, "step": 2, "seed": 7}
    assert read_validation(history.checkpoint(1)).tolist() == [[0.5, 0.5]] * 3
    assert read_bundle(history.checkpoint(1)).temperature == metrics["temperature"] == 1.5


@pytest.mark.parametrize(
    ("keep", "expected"), [(1, [2, 5]), (2, [2, 4, 5]), (9, [1, 2, 3, 4, 5]), (None, [1, 2, 3, 4, 5])]
)
def test_the_last_checkpoints_and_the_best_one_are_kept(tmp_path: Path, keep: int | None, expected: list[int]) -> None:
    record(History(tmp_path, keep), 0.5, 0.2, 0.4, 0.6, 0.3)

    assert kept(tmp_path) == expected


def test_the_last_three_checkpoints_have_the_optimisers_state(tmp_path: Path) -> None:
    record(History(tmp_path), 0.5, 0.2, 0.4, 0.6, 0.3)

    states = [path.parent.name for path in sorted((tmp_path / "checkpoints").glob("*/state.pt"))]
    assert states == ["epoch_0003", "epoch_0004", "epoch_0005"]
    assert read_bundle(find_bundle(tmp_path, epoch=1)).origin["metrics"]["epoch"] == 1


def test_the_best_epoch_is_the_earliest_of_equals_and_never_one_without_a_loss(tmp_path: Path) -> None:
    record(history := History(tmp_path), float("nan"), 0.3, 0.4, 0.3)

    best, last = history.chosen("best"), history.chosen("last")

    assert best is not None
    assert last is not None
    assert (best["epoch"], last["epoch"]) == (2, 4)


def test_a_run_without_epochs_has_no_past(tmp_path: Path) -> None:
    history = History(tmp_path)

    history.rewind()

    assert (history.last, history.past(), history.chosen("best"), history.chosen("last")) == (0, [], None, None)


@pytest.mark.parametrize("function", ["append_json_lines", "put_json"])
@pytest.mark.parametrize("call", [1, 2])
def test_what_an_interrupted_epoch_wrote_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, call: int
) -> None:
    record(history := History(tmp_path), 0.5, 0.4)
    before = everything(tmp_path)
    write, calls = getattr(store, function), []

    def dies(path: Path, values: Any) -> None:
        """Die in the n-th call; what is appended by then ends within a line."""
        calls.append(path)
        if len(calls) == call and function == "append_json_lines":
            path.write_text(path.read_text() + '{"epoch": 3, "val_l')
        if len(calls) == call:
            raise KeyboardInterrupt
        write(path, values)

    with monkeypatch.context() as patch:
        patch.setattr(store, function, dies)
        if function == "put_json":
            patch.setattr("histo.learn.fit.checkpoint.put_json", dies)
        with pytest.raises(KeyboardInterrupt):
            record(history, 0.3)
    history.rewind()

    assert everything(tmp_path) == before
    assert [path.suffix for path in (tmp_path / "checkpoints").iterdir() if path.name.startswith(".")] == []
    assert history.last == 2


def test_a_bundle_is_found_in_a_run_by_epoch_or_as_the_best(tmp_path: Path) -> None:
    record(history := History(tmp_path, keep=1), 0.5, 0.2, 0.4)

    assert find_bundle(tmp_path, epoch=3) == history.checkpoint(3)
    assert find_bundle(history.checkpoint(2)) == history.checkpoint(2)
    with pytest.raises(UsageError, match=r"--epoch 1: no checkpoint of that epoch there; kept are: 2, 3"):
        find_bundle(tmp_path, epoch=1)


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    record(History(run := tmp_path_factory.mktemp("run"), keep=1), 0.5, 0.4)
    return run


@pytest.mark.slow
@given(st.data())
def test_a_run_of_which_a_file_is_cut_goes_on_or_is_refused_in_one_line(two_epochs: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(two_epochs, Path(folder) / "run"))
        cut = run / data.draw(st.sampled_from(["metrics.jsonl", "steps.jsonl", "checkpoints/index.json"]))
        content = cut.read_bytes()
        cut.write_bytes(content[: data.draw(st.integers(0, len(content) - 2))])  # the last byte ends a line
        history = History(run)

        if cut.name == "steps.jsonl":
            history.rewind()
            assert [line["val_loss"] for line in history.past()] == [0.5, 0.4]
            draw_curves(history.past(), history.steps(), 2, run / "curves.png")
        else:
            with pytest.raises(UsageError, match=cut.name) as caught:
                history.rewind()
            assert "\n" not in str(caught.value)

        assert kept(run) == [2], "no checkpoint is lost by it"


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints/index.json"])
@pytest.mark.parametrize(
    "content", [b"null", b"[1]", b'{"last": "2"}', b'{"epoch": 1}\n', b"\xff\xfe", b"[" * 100_000, None], ids=range(7)
)
def test_a_file_of_another_shape_or_none_is_refused_in_one_line(
    two_epochs: Path, tmp_path: Path, name: str, content: bytes | None
) -> None:
    run = Path(shutil.copytree(two_epochs, tmp_path / "run"))
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)

    with pytest.raises(UsageError, match=name) as caught:
        History(run).rewind()

    assert "\n" not in str(caught.value)
    assert kept(run) == [2]


@pytest.mark.slow
@given(st.data())
def test_a_line_with_another_value_is_refused_or_left_out(two_epochs: Path, data: st.DataObject) -> None:
    other = st.none() | st.booleans() | st.text(max_size=3) | st.lists(st.integers(), max_size=2) | st.just(10**400)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(two_epochs, Path(folder) / "run"))
        changed = run / data.draw(st.sampled_from(["metrics.jsonl", "steps.jsonl"]))
        lines = store.read_json_lines(changed)
        line = data.draw(st.sampled_from(lines))
        name = data.draw(st.sampled_from([name for name in line if not name.startswith("val_")]))
        line[name] = data.draw(other)
        store.put_json_lines(changed, lines)
        history = History(run)

        with suppress(UsageError):
            history.rewind()
            draw_curves(history.past(), history.steps(), 2, run / "curves.png")


def test_a_run_that_died_in_its_first_epoch_begins_again(tmp_path: Path) -> None:
    History(tmp_path).rewind()
    History(tmp_path).checkpoint(1).mkdir()
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "val_l')

    History(tmp_path).rewind()

    assert (History(tmp_path).last, kept(tmp_path)) == (0, [])


@pytest.mark.parametrize(
    "index",
    [
        '{"last": 3, "kept": []}',
        '{"last": 3}',
        '{"last": 3, "kept": [2]}',
        '{"last": 3, "kept": [7]}',
        '{"last": 3, "kept": [-1, 3]}',
        '{"last": 3, "kept": [3, 3]}',
        '{"last": 3, "kept": [1, 3]}',
        '{"last": 0, "kept": []}',
        '{"last": 1, "kept": [1]}',
        '{"last": 100000000000000000000000, "kept": [100000000000000000000000]}',
    ],
)
def test_an_index_that_does_not_fit_the_run_costs_no_checkpoint(tmp_path: Path, index: str) -> None:
    record(History(tmp_path, keep=2), 0.5, 0.4, 0.3)
    (tmp_path / "checkpoints" / "index.json").write_text(index)

    with pytest.raises(UsageError, match=r"index\.json: (is damaged|does not fit the epochs that are there); put back"):
        History(tmp_path, keep=2).rewind()

    assert kept(tmp_path) == [2, 3]


@pytest.mark.parametrize(
    ("kept", "said"), [([], r"\(0 epochs have\); go on with `histo train --resume`$"), ([1, 2], "give .*/epoch_0002$")]
)
def test_a_run_that_has_not_ended_is_no_bundle_yet_and_says_how_to_go_on(
    tmp_path: Path, kept: list[int], said: str
) -> None:
    write_index(tmp_path, EpochIndex(last=len(kept), kept=kept))

    with pytest.raises(UsageError, match=said):
        find_bundle(tmp_path)
