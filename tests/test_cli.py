"""Wrong usage, as a person meets it: one clear line, exit 2, within seconds, before Ray starts."""

import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from unittest.mock import Mock

import pytest

import histo
from histo.cli import _JOBS, _specs, main
from histo.spec.names import flag_name, settings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def place(tmp_path: Path, bundle: Path, tiles: Path) -> Path:
    """A folder with a bundle, a broken bundle, tiles, an empty folder, and a folder without slides."""
    shutil.copytree(bundle, tmp_path / "model")
    shutil.copytree(bundle, tmp_path / "misfit")
    document = json.loads((tmp_path / "misfit" / "model.json").read_text())
    (tmp_path / "misfit" / "model.json").write_text(json.dumps(document | {"classes": ["A", "B"]}))
    shutil.copytree(bundle, tmp_path / "no-mpp")
    document["input"]["mpp"] = None
    (tmp_path / "no-mpp" / "model.json").write_text(json.dumps(document))
    shutil.copy(tiles, tmp_path / "tiles.npz")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("not a slide")
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "a.svs").write_text("not a slide either, but a candidate")
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "part-00000.parquet").write_text("")
    for name in ("X", "TUM"):
        (tmp_path / "strange" / name).mkdir(parents=True)
        (tmp_path / "strange" / name / "a.png").write_text("not looked at")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "checkpoints").mkdir()
    (tmp_path / "used" / "checkpoints" / "index.json").write_text('{"last": 3, "kept": [3]}')
    (tmp_path / "used" / "metrics.json").write_text("{}")
    return tmp_path


JOBS = ["train", "crossval", "label", "evaluate", "convert", "prepare tiles", "prepare volumes"]
LABEL = "label --slides slides --model model --out out"
TRAIN = "train --data tiles.npz --out out"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("label --slides nowhere --model model --out out", "nowhere: no such file or folder"),
        ("label --slides empty --model model --out out", "empty: no slides in it; it holds nothing"),
        ("label --slides notes --model model --out out", "notes: no slides in it; it holds 1 .txt"),
        ("label --slides slides --model nowhere --out out", "nowhere: no such folder"),
        ("label --slides slides --model empty --out out", "not a model bundle, model.json is missing"),
        ("label --slides slides --model misfit --out out", "3 outputs, but model.json names 2 classes"),
        ("label --slides slides --model no-mpp --out out", "train it with --mpp, or give --tiling.mpp"),
        ("label --slides slides --model model --out tiles.npz", "tiles.npz: cannot be written"),
        ("label --slides slides --model model", "--out is missing"),
        (f"{LABEL} --workers 0", "--workers: '0': input should be greater than or equal to 1"),
        (f"{LABEL} --sldies x", "--sldies: unknown flag; did you mean --slides?"),
        (f"{LABEL} --tissue.min-fraction 2", "--tissue.min-fraction: '2': input should be less than or equal to 1"),
        (f"{LABEL} --mpp-if-missing 0.0001", "--mpp-if-missing: '0.0001': input should be greater than or equal to"),
        ("train --data nowhere --out out", "nowhere: no such file or folder"),
        ("train --data empty --out out", "empty: no class folders in it"),
        ("train --data tiles.npz --out used", "used: already holds a run; continue it with --resume"),
        ("train --data tiles.npz --out used --resume", "run.json: cannot be read"),
        (f"{TRAIN} --epoch 3", "epoch says which epoch of --start-from is used"),
        (f"{TRAIN} --epoch 3", "histo train: --epoch says which epoch of --start-from is used"),
        (f"{TRAIN} --seed 4294967296", "--seed: '4294967296': input should be less than"),
        (f"{TRAIN} --start-from model --network.weights w", "two ways to begin; give one of them"),
        ("train --data strange --out strange/run", "whose images are read; give another folder"),
        (f"{TRAIN} --start-from nowhere", "nowhere: no such folder"),
        (
            f"{TRAIN} --start-from model --network.backbone resnet18",
            "its backbone is test_efficientnet, not resnet18",
        ),
        (f"{TRAIN} --fit.tune.layers 99", "--fit.tune.layers 99: this backbone has 17"),
        (f"{TRAIN} --fit.head.epochs 0 --fit.tune.epochs 0", "no epochs"),
        (f"{TRAIN} --workers 0", "--workers: '0': input should be greater than or equal to 1"),
        (f"{TRAIN} --classes A,B,A", "A is named twice"),
        (f"{TRAIN} --classes A,B\x07", ": cannot be read; give the list in a --config file"),
        (f"{TRAIN} --classes A,{'B' * 201}", "is no name of a class; give 1 to 200 printable characters"),
        ("evaluate --model model --data tiles.npz --out out --classes A,B", "--classes: unknown flag; valid names: "),
        ("train --data tiles.npz --out tiles.npz", "tiles.npz: cannot be written"),
        ("train --data tiles.npz --out ", "--out: '': value error, the path is empty"),
        (f"{TRAIN} --network.backbone resnet5", "resnet5: timm has no such model"),
        (f"{TRAIN} --network.weights nowhere", "--network.weights"),
        (f"{TRAIN} --device tpu", "--device: 'tpu': input should be 'auto', 'cpu' or 'gpu'"),
        (f"{TRAIN} --config nowhere.yaml", "--config nowhere.yaml: No such file or directory"),
        ("evaluate --model model --data nowhere --out out", "nowhere: no such file or folder"),
        ("evaluate --model model --data tiles.npz,nowhere --out out", "nowhere: no such file or folder"),
        ("evaluate --model model --data tiles.npz,,tiles.npz --out out", "--data: '': value error, the path is empty"),
        ("evaluate --model model --data {x} --out out", "--data: cannot be read (Expecting property name"),
        (
            "evaluate --model model --data strange --out out",
            "class X is not one of the bundle's classes: MUS, STR, TUM",
        ),
        ("prepare tiles --data nowhere --out out", "nowhere: no such file or folder"),
        ("prepare tiles --data tiles.npz --data tiles.npz --out out", "tiles.npz: given twice"),
        ("prepare tiles --data notes/a.txt --out out", "expected a folder of class folders, an .npz file, a .csv or"),
        ("prepare tiles --data tiles.npz --out table", "table: already holds a table"),
        ("prepare tiles --data tiles.npz --out out --max-broken 2", "--max-broken: '2': input should be less than"),
        ("prepare tiles --data tiles.npz --out out --tile 2", "--tile: unknown flag"),
        ("evaluate --model model --data tiles.npz --out used", "used: already holds a run"),
        ("prepare volumes --studies nowhere --out out", "nowhere: no such file or folder"),
        ("prepare volumes --studies empty --out empty/out", "empty/out: lies in --studies"),
        ("prepare volumes --studies used --out tiles.npz", "tiles.npz: cannot be written"),
        ("prepare volumes --studies used --out out --preparation.slices 0", "--preparation.slices: '0': input should"),
        ("prepare volumes --studies used --out out --study-is files", "input should be 'folder' or 'file'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2_before_ray_starts(
    place: Path, command: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))

    code = main(command.split(" "))

    shown = capsys.readouterr()
    assert code == 2
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not (place / "out").exists()


WRONG = [
    f"{TRAIN} --classes A,B,A",
    "train --data nowhere --out out",
    "train --data strange --out out --split.val-fraction 2",
    "train --data notes/a.txt --out out",
    "crossval --data nowhere --out out",
    "crossval --data tiles.npz --out out --folds 1",
    "evaluate --model model --data nowhere --out out",
    "evaluate --model model --data strange --out out",
    "evaluate --model empty --data tiles.npz --out out",
    "convert --model empty",
    "convert --model model --data nowhere",
    "label --slides nowhere --model model --out out",
    "prepare tiles --data nowhere --out out",
    "prepare volumes --studies nowhere --out out",
]


@pytest.mark.slow
def test_it_is_said_before_torch_is_loaded_and_by_jobs_that_need_it_before_ray_is(place: Path) -> None:
    script = (
        "import sys; from histo.cli import main\n"
        "for line in sys.stdin.read().splitlines():\n"
        "    code = main(line.split())\n"
        "    ray = line.split()[0] in ('train', 'crossval', 'evaluate', 'convert', 'label') and 'ray' in sys.modules\n"
        "    print('code', code, 'torch' in sys.modules, ray)\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script], input="\n".join(WRONG), cwd=place, capture_output=True, text=True, check=True
    )

    told = [line for line in ended.stdout.splitlines() if line.startswith("code ")]
    assert told == ["code 2 False False"] * len(WRONG), ended.stderr
    assert len(ended.stderr.splitlines()) == len(WRONG)


@pytest.mark.parametrize("argv", [[], ["lable"], ["--verison"], ["prepare"], ["prepare", "tile"]])
def test_an_unknown_job_shows_the_jobs_and_exits_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert "histo label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "name"),
    [(["lable"], "label"), (["trian", "--data", "x"], "train"), (["prepare", "tile"], "prepare tiles"),
     (["prepare", "volume"], "prepare volumes"), (["export", "geojs"], "export geojson"),
     (["export"], "export geojson or histo export geoparquet or histo export wsinfer"),
     (["export", "csv"], "export geojson or histo export geoparquet or histo export wsinfer"),
     (["prepare"], "prepare tiles or histo prepare volumes"),
     (["prepare-volumes"], "prepare volumes"), (["evaluation"], "evaluate")],
)  # fmt: skip
def test_the_job_that_is_most_like_an_unknown_one_is_named(
    argv: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert f"; did you mean histo {name}?\n" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "jobs"), [("prepare", 2), ("export", 3)])
def test_the_first_word_of_several_jobs_has_a_help_of_its_own(
    word: str, jobs: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.count(f"histo {word} ") == jobs
    assert "histo train" not in said


def test_a_settings_file_of_another_job_is_called_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ROOT / "configs" / "train" / "nct-crc-he-100k.yaml"

    assert main(["label", "--config", str(config), "--slides", "x", "--model", "y", "--out", "z"]) == 2
    assert (
        capsys.readouterr().err == f"histo label: {config}: has settings of histo train; give a file for histo label\n"
    )


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """Run a job that fails."""
    monkeypatch.setattr("histo.pipelines.convert.convert", Mock(side_effect=error))
    return main(["convert", "--model", "x"])


def test_a_mistake_of_our_own_is_one_line_and_a_file_with_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    code = fail_with(monkeypatch, KeyError("two\nlines"))

    (file,) = tmp_path.iterdir()
    shown = capsys.readouterr().err
    assert code == 1
    assert shown.startswith(
        "histo convert: KeyError: 'two\\nlines'; this is a mistake of histo's, please report it with"
    )
    assert shown.endswith(f"{file}\n")
    assert shown.count("\n") == 1
    assert "Traceback" in file.read_text()


def test_where_no_file_can_be_written_the_traceback_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")

    assert fail_with(monkeypatch, RuntimeError()) == 1

    *lines, last = capsys.readouterr().err.splitlines()
    assert "Traceback" in lines[0]
    assert last == "histo convert: RuntimeError; this is a mistake of histo's, please report it with the lines above"


def test_want_of_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert fail_with(monkeypatch, MemoryError()) == 1
    assert capsys.readouterr().err.startswith("histo convert: there is not enough memory")


@pytest.mark.parametrize(("before", "after"), [(None, "0"), ("1", "1")])
def test_rays_usage_statistics_are_off_unless_the_user_turned_them_on(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    if before:
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", before)

    fail_with(monkeypatch, MemoryError())

    assert os.environ["RAY_USAGE_STATS_ENABLED"] == after


def test_sigterm_is_told_in_a_line_whatever_a_job_is_doing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("histo.pipelines.convert.convert", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)

    assert main(["convert", "--model", "x"]) == 1

    assert capsys.readouterr().err == "histo convert: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"histo {metadata.version('histo')}\n"


def test_the_package_knows_its_version_and_looks_it_up_only_where_it_is_asked_for() -> None:
    program = "import sys, histo; print('importlib.metadata' in sys.modules, histo.__version__)"

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert shown.stdout.split() == ["False", metadata.version("histo")]


def test_the_package_has_no_other_name_that_it_looks_up() -> None:
    with pytest.raises(AttributeError, match="module 'histo' has no attribute '__author__'"):
        getattr(histo, "__author__")  # noqa: B009 -- a name that mypy does not know


@pytest.mark.parametrize(
    ("words", "prog"),
    [(["histo", "train"], "histo train"), (["histo", "demo"], "histo demo"), (["histo.demo"], "python -m histo.demo")],
)
def test_python_runs_the_package_as_the_command(words: list[str], prog: str) -> None:
    command = [sys.executable, "-m", *words, "--wrong", "1"]

    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{prog}: --wrong: unknown flag")
    assert ended.stderr.count("\n") == 1


def test_help_shows_the_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "histo train" in capsys.readouterr().out


@pytest.mark.parametrize("job", sorted(_JOBS))
def test_help_of_a_job_is_short_and_tells_how_to_see_all(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec = _specs()[f"histo {job}"]
    fields = dict(settings(spec))

    with pytest.raises(SystemExit):
        main([*job.split(), "--help"])
    shown = capsys.readouterr().out

    required = {name for name, field in fields.items() if field.is_required()}
    count = len(set(fields) - spec.COMMON - required) if spec.COMMON else 0
    assert set(fields) >= spec.COMMON, "a common field that there is not"
    assert (shown.splitlines()[-1] == f"--help-all lists {count} more") is (count > 0)
    assert all(f"{flag_name(name)} " in shown for name in required)
    assert len(shown.splitlines()) < 100
    assert "None" not in shown


@pytest.mark.parametrize("job", sorted(_JOBS))
def test_help_all_of_a_job_lists_every_field(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*job.split(), "--help-all"])
    shown = capsys.readouterr().out

    for name, _ in settings(_specs()[f"histo {job}"]):
        assert re.search(rf"^  {flag_name(name)}\b", shown, flags=re.MULTILINE)
    assert "None" not in shown


HEAVY = ("torch", "torchvision", "ray", "timm", "sklearn", "cv2", "scipy", "numpy", "pyarrow", "openslide")
MOST_CPU_S = 1.5
"""For --help and for a wrong flag; on the machines at hand they take a fifth of it."""


@pytest.mark.parametrize("words", [["--help"], ["--help-all"], ["--nonsense", "1"]])
@pytest.mark.parametrize("job", sorted(_JOBS))
def test_help_and_a_wrong_flag_load_nothing_heavy(job: str, words: list[str]) -> None:
    program = (
        "import os, sys\n"
        "from histo.cli import main\n"
        "try:\n"
        f"    main({[*job.split(), *words]})\n"
        "except SystemExit:\n"
        "    pass\n"
        f"loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "times = os.times()\n"
        "print(loaded, times.user + times.system, sep='|')\n"
    )

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    loaded, cpu_s = shown.stdout.splitlines()[-1].split("|")
    assert loaded == "[]"
    assert float(cpu_s) < MOST_CPU_S


@pytest.mark.slow
@pytest.mark.parametrize(
    "job", ["train", "crossval", "label", "evaluate", "convert", "prepare tiles", "prepare volumes"]
)
def test_an_entry_script_fails_in_seconds_with_one_line(job: str, tmp_path: Path) -> None:
    before_s = processor_seconds()
    script, *words = job.split()

    ended = subprocess.run(
        [sys.executable, ROOT / "jobs" / f"{script}.py", *words, "--wrong", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 2
    assert ended.stderr.startswith((f"jobs/{job}.py: --wrong: unknown flag", f"histo {job}: --wrong: unknown flag"))
    assert ended.stderr.count("\n") == 1
    assert processor_seconds() - before_s < 60, "generous; it takes 3 to 20"


def processor_seconds() -> float:
    """What all processes took that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    "command",
    [
        LABEL,
        "label --studies slides --model model --out out",
        "evaluate --model model --data tiles.npz --out out",
        "convert --model model",
        f"{TRAIN} --start-from model",
        "crossval --data tiles.npz --out out --start-from model",
    ],
)
@pytest.mark.parametrize(
    "change",
    [
        {"temperature": float("inf")},
        {"classes": ["MUS", "a\x1b[2Jb", "TUM"]},
        {"architecture": {"backbone": "local-dir:/tmp"}},
    ],
    ids=["temperature", "classes", "backbone"],
)
def test_a_bundle_out_of_bounds_is_one_line_whatever_job_reads_it(
    place: Path,
    command: str,
    change: dict[str, object],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    document = place / "model" / "model.json"
    document.write_text(json.dumps(json.loads(document.read_text()) | change))
    monkeypatch.chdir(place)

    assert main(command.split()) == 2

    told = capsys.readouterr().err.strip()
    assert "model.json: " in told
    assert told.isprintable()


def test_a_run_is_not_put_among_its_images_by_way_of_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("A", "B"):
        (tmp_path / "tiles" / name).mkdir(parents=True)
        (tmp_path / "tiles" / name / "a.png").touch()
    (tmp_path / "elsewhere").symlink_to("tiles/A")

    assert main(["train", "--data", "tiles", "--out", "elsewhere/run"]) == 2
    assert "whose images are read; give another folder" in capsys.readouterr().err


def test_help_is_shown_where_the_terminal_knows_few_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    with io.TextIOWrapper(shown, encoding="ascii") as few:
        monkeypatch.setattr("sys.stdout", few)

        with pytest.raises(SystemExit):
            main(["label", "--help"])

        few.flush()
        assert b"\\xb5m/px" in shown.getvalue()
