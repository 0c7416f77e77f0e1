"""Slides that end, hang or starve the processes that read them: they are blamed, and nothing else is."""

from pathlib import Path

import pytest
from helpers.label_loop import label_folder, make_job
from helpers.label_process import assert_same_tables, ledger, run, write_slide

pytestmark = [pytest.mark.ray, pytest.mark.slow]

GOOD = ("good one.tif", "good two.tif", "once-tiles.tif", "once-mask.tif")
BAD = {
    "crash-tiles.tif": ("crash", "SIGSEGV", "convert or export it again"),
    "crash-mask.tif": ("crash", "SIGSEGV", "convert or export it again"),
    "hang-mask.tif": ("timeout", "(plan): nothing could be read for 4 s", "raise --read-timeout-s"),
    "hang-tiles.tif": ("timeout", "nothing could be read for 4 s", "raise --read-timeout-s"),
    "killed-tiles.tif": ("out_of_memory", "was killed", "fewer --workers"),
}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for number, name in enumerate((*GOOD, *BAD)):
        write_slide(folder / name, 1152, 576, seed=number, lossless=True)
    return folder


@pytest.mark.parametrize(
    "workers",
    [
        pytest.param(("--workers", "2"), id="workers read"),
        pytest.param(("--workers", "1", "--readers", "1"), id="readers apart", marks=pytest.mark.chaos),
    ],
)
def test_only_what_dies_alone_is_blamed_and_the_next_run_tries_what_may_be_mended(
    workers: tuple[str, ...], slides: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    faults, out = tmp_path / "faults", tmp_path / "out"
    faults.mkdir()

    code, log = run(slides, tiny_bundle, out, "--read-timeout-s", "4", *workers, FAULTS=str(faults))

    rows = ledger(out)
    assert code == 3, log
    assert {name: rows[name]["status"] for name in GOOD} == dict.fromkeys(GOOD, "ok")
    assert {name: (rows[name]["status"], rows[name]["error_code"]) for name in BAD} == {
        name: ("failed", code) for name, (code, *_) in BAD.items()
    }
    for name, (_, *words) in BAD.items():
        assert all(word in rows[name]["error"] for word in (name, *words)), rows[name]["error"]
    assert {row["attempts"] for row in rows.values()} == {1}
    assert {path.name for path in faults.iterdir()} == {"once-tiles.tif", "once-mask.tif"}

    code, log = run(slides, tiny_bundle, out)

    assert code == 3, log
    assert "4 done before, 2 failed before, which --retry-failed tries again, 3 to label again" in log
    assert {name: row["status"] for name, row in ledger(out).items()} == {
        name: "failed" if name.startswith("crash") else "ok" for name in (*GOOD, *BAD)
    }

    code, log = run(slides, tiny_bundle, out, "--retry-failed")

    assert code == 0, log
    assert_same_tables(out, label_folder(make_job(tiny_bundle, tmp_path / "undisturbed"), slides))
    assert sorted(path.name for path in out.iterdir()) == ["run.json", "slides.parquet", "tiles"]
