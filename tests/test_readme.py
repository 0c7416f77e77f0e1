"""What the README says is so."""

import re
from pathlib import Path

import pytest

from histo import tables
from histo.errors import Cause
from histo.pipelines.convert import ConvertSpec
from histo.pipelines.evaluate import EvaluateSpec
from histo.pipelines.label import LabelSpec
from histo.pipelines.prepare_tiles import PrepareTilesSpec
from histo.pipelines.prepare_volumes import PrepareVolumesSpec
from histo.pipelines.train_spec import CrossvalSpec, TrainSpec
from histo.spec import field_names

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("columns", [tables.TILES, tables.SLIDES, tables.PREDICTIONS])
def test_the_readme_lists_the_columns_as_they_are_written(columns: tuple[tables.Column, ...]) -> None:
    rows = [f"| `{c.name}` | {c.type} | {c.unit} | {c.meaning} |" for c in columns]

    assert "\n".join(rows) in README


@pytest.mark.parametrize("columns", [tables.PREPARED_STUDIES, tables.LABELLED_STUDIES])
def test_the_page_on_volumes_lists_the_columns_as_they_are_written(columns: tuple[tables.Column, ...]) -> None:
    rows = [f"| `{c.name}` | {c.type} | {c.unit} | {c.meaning} |" for c in columns]

    assert "\n".join(rows) in (ROOT / "docs" / "volumes.md").read_text(encoding="utf-8")


def test_every_place_that_the_readme_names_is_there() -> None:
    named = re.findall(r"^((?:jobs|configs|histo|docs)/\S*)  ", README, flags=re.MULTILINE)

    assert len(named) > 10
    assert all((ROOT / name).exists() for name in named)


def test_every_module_is_on_the_map() -> None:
    for package in ("slides", "volumes", "learn"):
        modules = {path.stem for path in (ROOT / "histo" / package).glob("*.py")} - {"__init__", "collective"}
        line = re.search(rf"^histo/{package}/ +(.*)$", README, flags=re.MULTILINE)
        assert line
        assert set(line[1].split(", ")) == modules


def test_every_make_target_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"\bmake ([a-z-]+)", README))

    assert targets
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("page", ["README.md", "docs/volumes.md"])
def test_the_flags_that_a_page_names_exist(page: str) -> None:
    specs = (TrainSpec, CrossvalSpec, LabelSpec, EvaluateSpec, ConvertSpec, PrepareTilesSpec, PrepareVolumesSpec)
    known = {f"--{name.replace('_', '-')}" for spec in specs for name in field_names(spec)}
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z.-]*[a-z]", text)) - {
        "--help",
        "--config",
        "--working-dir",
        "--head",
    }

    assert {name.replace("--no-", "--") for name in named} <= known


def test_the_page_on_reliability_lists_every_cause_and_whether_it_is_tried_again() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")

    listed = re.findall(r"^\| `(\w+)` \| (again|asked) \| ", page, flags=re.MULTILINE)

    assert listed == [(cause.value, "again" if cause.transient else "asked") for cause in Cause]
