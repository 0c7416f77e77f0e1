"""The demo, with fewer tiles than `make demo` has."""

from pathlib import Path

import pytest
from helpers.inline_ray import train_inline

from histo.demo import run
from histo.demo.run import demo
from histo.demo.spec import DemoSpec
from histo.errors import HistoError, UsageError


@pytest.mark.slow
@pytest.mark.usefixtures("joined_ray")
def test_the_demo_keeps_its_promise_and_shows_each_slide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_inline(monkeypatch)

    code = demo(DemoSpec(out=tmp_path / "demo", tiles_per_class=20))

    shown = capsys.readouterr().out
    assert code == 0, shown
    assert "tiles that lie wholly in one class are right" in shown
    for name in ("demo_1", "demo_2", "demo_3_no_mpp"):
        picture = tmp_path / "demo" / "labels" / "pictures" / f"{name}.tif.png"
        assert f"picture: {picture}" in shown
        assert picture.stat().st_size > 50_000


def test_a_demo_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()

    with pytest.raises(UsageError, match="already holds a demo; remove it, or give another folder"):
        demo(DemoSpec(out=tmp_path))


def test_an_error_of_a_job_names_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise HistoError("no weights")

    fail.__name__ = "train"
    monkeypatch.setattr(run, "fabricate_tiles", lambda *_: None)
    monkeypatch.setattr(run, "fabricate_slides", lambda *_: [])
    monkeypatch.setattr(run, "train", fail)

    with pytest.raises(HistoError, match=r"^histo train: no weights$"):
        demo(DemoSpec(out=tmp_path))
