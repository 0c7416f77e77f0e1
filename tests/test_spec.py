import errno
import os
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from histo.errors import UsageError
from histo.spec.base import AbsolutePath, AbsolutePaths, Spec
from histo.spec.command_line import read_spec
from histo.spec.names import field_names, flag_name, settings


class Tiling(Spec):
    stride_px: int = Field(224, gt=0)
    """Distance of origins (px)."""
    mpp: float | None = None


class Tissue(Spec):
    mpp: float = 8.0


class Label(Spec):
    """Label slides."""

    slides: AbsolutePath
    workers: int | None = Field(None, ge=1)
    classes: list[str] | None = None
    data: AbsolutePaths = Field([Path("/d")])
    overwrite: bool = False
    tiling: Tiling = Tiling()
    tissue: Tissue = Tissue()


def read(*argv: str) -> Label:
    return read_spec(Label, argv, "histo label")


def test_a_flag_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("slides: /a\ntiling: {stride_px: 112, mpp: 0.5}\n")

    spec = read("--config", str(file), "--tiling.stride-px", "56")

    assert (spec.tiling.stride_px, spec.tiling.mpp) == (56, 0.5)


def test_a_relative_path_starts_at_the_callers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert read("--slides", "here").slides == tmp_path / "here"


def test_a_relative_path_in_a_folder_that_is_gone_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    with pytest.raises(UsageError, match=r"--slides: .*the working folder is gone; write the path out"):
        read("--slides", "here")


def test_a_section_whose_lines_are_all_comments_means_its_defaults(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("slides: /a\ntiling:\n  # stride_px: 3\n")

    assert read("--config", str(file)).tiling == Tiling()


def test_lists_are_given_with_commas() -> None:
    assert read("--slides", "a", "--classes", "STR,TUM").classes == ["STR", "TUM"]


@pytest.mark.parametrize(
    ("argv", "paths"),
    [
        (["--data", "/a"], ["/a"]),
        (["--data", "/a", "--data", "/b"], ["/a", "/b"]),
        (["--data", "/a,/b c"], ["/a", "/b c"]),
        (["--data", '"/a,b"', "--data", "/c[1]"], ["/a,b", "/c[1]"]),
    ],
)
def test_several_paths_are_given_with_several_flags_or_commas(argv: list[str], paths: list[str]) -> None:
    assert read("--slides", "a", *argv).data == [Path(path) for path in paths]


@pytest.mark.parametrize("value", ["/a", "[/a]"])
def test_one_path_in_a_file_needs_no_list(tmp_path: Path, value: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"slides: /s\ndata: {value}\n")

    assert read("--config", str(file)).data == [Path("/a")]


def test_a_switch_can_be_set_and_unset(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("slides: /a\noverwrite: true\n")

    assert read("--slides", "a", "--overwrite").overwrite
    assert not read("--config", str(file), "--no-overwrite").overwrite


def test_environment_variables_are_not_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", "7")

    assert read("--slides", "a").workers is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--slide", "a"], "--slide: unknown flag; did you mean --slides?"),
        (["--slides", "a", "--tiling.stride", "3"], "--tiling.stride: unknown flag; did you mean --tiling.stride-px?"),
        (["--slides", "a", "--tiling.stride_px", "3"], "did you mean --tiling.stride-px?"),
        (["--slides", "a", "--workers", "0"], "--workers: '0': input should be greater than or equal to 1"),
        (["--slides", "a", "--tiling.stride-px", "x"], "--tiling.stride-px: 'x': input should be a valid integer"),
        ([], "--slides is missing"),
        (["--config", "/nowhere.yaml"], "--config /nowhere.yaml: No such file or directory"),
        (["--slides"], "--slides: expected one argument"),
        (["--slides", "a", "--data", ""], "--data: '': value error, the path is empty"),
        (["--slides", "a", "--data", "{a}"], "--data: cannot be read (Expecting property name"),
        (["--slides", "a", "--mpp", "3"], "--mpp: unknown flag; did you mean --tiling.mpp or --tissue.mpp?"),
        (["--slides", "a", "--tissue.mp", "3"], "--tissue.mp: unknown flag; did you mean --tissue.mpp?"),
        (["--slides", "a", "--stride", "3"], "--stride: unknown flag; did you mean --tiling.stride-px?"),
        (["--slides", "a", "--overwrite", "false"], "--overwrite takes no value; give --overwrite or --no-overwrite"),
        (["a"], "a: no flag stands before it; every value follows its flag, as in --slides a"),
        (["--workers", "3", "a"], "a: no flag stands before it"),
        (["--slides", "x" * 5000], "File name too long; give another path"),
        (["--slides", "~nobody-of-this-name/a"], "there is no such user; write the path out"),
        (["--slides", "a\udce9"], "is not UTF-8; give a name in UTF-8"),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*argv)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slides: a\ntiling: {stride: 3}", "tiling.stride: unknown field; did you mean tiling.stride_px?"),
        ("slides: a\nworker: 3", "worker: unknown field; did you mean workers?"),
        ("slides: a\nworkers: many", "workers: 'many': input should be a valid integer"),
        ("- a\n- b", "expected `key: value` lines, found a list"),
        ("slides: [a", "not valid YAML"),
        ("slides: ''", "slides: '': value error, the path is empty"),
        ("slides: a\ntiling: {mpp: .inf}", "tiling.mpp: inf: input should be a finite number"),
        ('slides: "a\\0b"', "the path has a NUL character"),
        ("slides: a\n3: b", "the key 3 is not text"),
        ("tiling: &a\n  mpp: *a", "more than 20 levels"),
        (
            "a: &a {b: 1}\nc: &c [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
            "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]",
            "more than 10000 values",
        ),
        pytest.param("slides: " + "[" * 5000, "not valid YAML", id="open", marks=pytest.mark.slow),
        pytest.param("slides: " + "[" * 5000 + "]" * 5000, "brackets in brackets", id="deep", marks=pytest.mark.slow),
        ("slides: a\nworkers: \x00", "not valid YAML"),
        ("slides: a\nworkers: \udc80", "not valid YAML"),
        ("slides: a\nworkers: 1\nworkers: 2", "not valid YAML: 'workers' is given twice"),
        ("slides: a\ntiling: {mpp: 1, mpp: 2}", "not valid YAML: 'mpp' is given twice"),
        pytest.param(
            "slides: a\ntiling: {mpp: 0x" + "f" * 6000 + "}", "tiling.mpp: a number of thousands of digits: ", id="long"
        ),
    ],
)
def test_a_wrong_key_is_one_line_that_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(UsageError) as caught:
        read("--config", str(file))

    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_command_is_called_that(tmp_path: Path) -> None:
    class Train(Spec):
        data: str
        epochs: int

    file = tmp_path / "train.yaml"
    file.write_text("data: a\nepochs: 3")

    with pytest.raises(UsageError) as caught:
        read_spec(Label, ["--config", str(file), "--slides", "a"], "histo label", lambda: {"histo train": Train})

    assert str(caught.value) == f"{file}: has settings of histo train; give a file for histo label"


def test_a_settings_file_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path, reason in ((tmp_path / "pipe", "named pipe"), (tmp_path, "folder"), (Path("/dev/zero"), "device")):
        with pytest.raises(UsageError, match=f"^--config {path}: .*{reason}"):
            read("--config", str(path))


def help_of(spec: type[Spec], capsys: pytest.CaptureFixture[str], flag: str = "--help") -> str:
    with pytest.raises(SystemExit) as caught:
        read_spec(spec, [flag], "histo label")

    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("flag", ["-h", "--help", "--help-all"])
def test_help_lists_every_field_where_none_is_called_common(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(Label, capsys, flag)

    assert "more" not in shown.splitlines()[-1]
    assert "Distance of origins (px)." in shown
    for name in set(field_names(Label)) - {"tiling", "tissue"}:
        assert f"--{name.replace('_', '-')}" in shown


class Short(Label):
    """Label slides, with few fields that people use."""

    COMMON: ClassVar[frozenset[str]] = frozenset(("workers", "tiling.stride_px"))


def test_help_lists_required_and_common_fields_and_how_many_others_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = help_of(Short, capsys)

    for flag in ("--slides", "--workers", "--tiling.stride-px", "--config"):
        assert flag in shown
    for flag in ("--classes", "--data", "--overwrite", "--tiling.mpp", "tissue"):
        assert flag not in shown
    assert shown.splitlines()[-1] == "--help-all lists 5 more"


def test_help_all_lists_all_fields(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(Short, capsys, "--help-all")

    for name, _ in settings(Short):
        assert flag_name(name) in shown
    assert "lists" not in shown


class Defaults(Spec):
    """Fields without a default value."""

    threads: int | None = None
    """Threads; default: one for each CPU."""
    data: list[str] = Field([])
    """Tiles. Default: those of the run."""
    seed: int = 0
    """Seed."""


def test_help_states_a_default_once(capsys: pytest.CaptureFixture[str]) -> None:
    shown = " ".join(help_of(Defaults, capsys).split())

    assert "Threads; default: one for each CPU. --data" in shown
    assert "Default: those of the run. --seed" in shown
    assert "Seed. (default: 0)" in shown


@given(st.integers(1, 10**6), st.none() | st.floats(0.01, 100), st.none() | st.integers(1, 99))
def test_a_saved_spec_reads_back_as_itself(stride: int, mpp: float | None, workers: int | None) -> None:
    spec = Label(slides=Path("/a"), workers=workers, tiling=Tiling(stride_px=stride, mpp=mpp))

    assert Label.model_validate_json(spec.model_dump_json()) == spec


def test_a_path_whose_place_cannot_be_entered_is_a_setting_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)  # as where a colleague's run is read, whose images are not for all

    assert read("--slides", "/closed/slides").slides == Path("/closed/slides")
