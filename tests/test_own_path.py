"""What lies in the folder that somebody works in is never imported."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from helpers.label_process import ROOT, WITHIN_S, ledger, write_slide

from histo.own_path import HOME, leave_out_folders, own_path


@pytest.fixture
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, and a script in another one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "scripts" / "label.py")])
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), str(tmp_path / "scripts"), "/elsewhere", str(HOME)])
    return tmp_path


def test_the_working_folder_and_that_of_the_script_are_left_out_for_a_while(at_work: Path) -> None:
    before = sys.path[:]

    with own_path():
        assert sys.path == ["/elsewhere", str(HOME)]

    assert sys.path == before


def test_a_working_folder_that_holds_histo_is_asked_last(at_work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HOME)
    monkeypatch.setattr(sys, "path", [str(HOME), "", "/elsewhere"])

    leave_out_folders()

    assert sys.path == ["/elsewhere", str(HOME)]


def test_installed_packages_are_kept_wherever_somebody_works(at_work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = sysconfig.get_path("purelib")
    monkeypatch.chdir(packages)
    monkeypatch.setattr(sys, "path", [packages, str(HOME)])

    leave_out_folders()

    assert packages in sys.path


def test_a_working_folder_that_is_gone_is_no_error(at_work: Path) -> None:
    shutil.rmtree(at_work)

    leave_out_folders()

    assert "/elsewhere" in sys.path


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    ["pipelines.label", "pipelines.labelling.plan_worker", "pipelines.labelling.region_worker", "run.stream.drive"],
)
def test_labelling_slides_loads_no_decoder_of_volumes(module: str) -> None:
    program = f"""
import sys, histo.{module}
print([name for name in ("pydicom", "gdcm", "openjpeg", "nibabel", "histo.volumes") if name in sys.modules])
"""

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert shown.stdout.strip() == "[]"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("script_there", [False, True], ids=["script elsewhere", "script there"])
def test_a_run_goes_by_packages_that_lie_in_its_working_folder(
    tiny_bundle: Path, tmp_path: Path, script_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slide(tmp_path / "slides" / "a.tif")
    for name in ("dl", "cv2", "simplejpeg", "openvino", "timm", "torch", "pyarrow", "gdcm", "histo_report", "evaluate"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a folder of the user was imported')")
    script = shutil.copy(ROOT / "jobs" / "label.py", tmp_path) if script_there else ROOT / "jobs" / "label.py"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, str(script), "--slides", "slides", "--model", str(tiny_bundle), "--out", "out"]

    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=WITHIN_S)

    assert run.returncode == 0, run.stdout + run.stderr
    assert ledger(tmp_path / "out")["a.tif"]["n_ok"] == 72
