"""What the README and the pages of docs/ say is so."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from histo import tables
from histo.cli import _specs
from histo.errors import Cause
from histo.spec.names import field_names, flag_name

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
GUIDES = [
    "README.md",
    *(f"docs/{name}.md" for name in ("train", "label", "evaluate", "cluster", "volumes", "annotations", "qupath")),
]
"""The pages that tell how histo is used."""
OF_OTHERS = {"--help", "--help-all", "--config", "--working-dir", "--head"}
"""Flags that are no settings."""


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "reference" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_of_commands_is_that_of_the_settings_classes(generator: ModuleType) -> None:
    assert text_of("docs/reference/cli.md") == generator.cli(), "stale: make reference"


def test_the_reference_of_tables_is_that_of_their_columns(generator: ModuleType) -> None:
    assert text_of("docs/reference/tables.md") == generator.tables_page(), "stale: make reference"


def test_the_map_of_the_architecture_says_of_each_file_what_the_file_says(generator: ModuleType) -> None:
    assert text_of("docs/architecture.md") == generator.architecture(), "stale: make reference"


def test_the_reference_has_every_table_that_a_run_leaves_behind(generator: ModuleType) -> None:
    shown = [columns for _, _, columns in generator.TABLES]

    for name, value in vars(tables).items():
        if name.isupper() and not name.startswith("_") and isinstance(value, tuple):
            assert value in shown, name


def test_the_reference_names_every_setting() -> None:
    text = text_of("docs/reference/cli.md")

    for command, spec in _specs().items():
        section = text.split(f"## {command}\n")[1].split("\n## ")[0]
        rows = set(re.findall(r"\| `([\w.]+)` \|", section))
        assert {name for name in field_names(spec) if name not in _sections(list(field_names(spec)))} <= rows


def _sections(names: list[str]) -> set[str]:
    return {name for name in names if any(other.startswith(f"{name}.") for other in names)}


def test_every_module_is_on_the_map_and_every_module_of_the_map_exists() -> None:
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "histo").rglob("*.py")}
    modules = {path for path in there if not path.endswith("__init__.py")}
    rooms = {f"{path.rpartition('/')[0]}/" for path in there if path.endswith("__init__.py")}

    named = re.findall(r"^(histo/\S*) +\S", text_of("docs/architecture.md"), flags=re.MULTILINE)

    assert sorted(named) == sorted(modules | rooms)


def test_every_module_that_the_architecture_names_exists() -> None:
    there = [f"/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob("histo/**/*.py")]
    named = set(re.findall(r"`([a-z_/]+\.py)`", text_of("docs/architecture.md")))

    assert len(named) > 30
    assert [name for name in sorted(named) if not any(path.endswith(f"/{name}") for path in there)] == []


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 120
    assert (ROOT / "docs" / "demo.png").stat().st_size < 150_000


@pytest.mark.parametrize("page", [*PAGES, "docs/reference/cli.md", "docs/reference/tables.md"])
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    named = re.findall(r"\b(?:configs|benchmarks|tests|jobs|docs)/[\w/-]+\.(?:yaml|py|md)\b", text_of(page))

    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_that_a_page_names_exists(page: str) -> None:
    code = re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", text_of(page), flags=re.MULTILINE)
    targets = {name for pair in code for name in pair if name}

    assert targets <= set(re.findall(r"^([a-z-]+):", text_of("Makefile"), flags=re.MULTILINE))


def test_the_head_of_the_makefile_names_every_target() -> None:
    head = set(re.findall(r"^# make ([a-z-]+) ", text_of("Makefile"), flags=re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), flags=re.MULTILINE))

    assert targets - head == {"test-together", "test-alone"}


@pytest.mark.parametrize("page", GUIDES)
def test_the_flags_that_a_page_names_exist(page: str) -> None:
    known = {flag_name(name) for spec in _specs().values() for name in field_names(spec)}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z.-]*[a-z]", text_of(page))) - OF_OTHERS

    assert {name.replace("--no-", "--") for name in named} <= known


@pytest.mark.parametrize("page", ["docs/label.md"])
def test_pandas_reads_tables_as_a_page_shows(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file, columns in (("slides", tables.SLIDES), ("tiles/a/s1.svs", tables.TILES)):
        rows = [{"slide_id": "a/s1.svs", "status": "ok"}]
        tables.write_table(
            tmp_path / "OUT" / f"{file}.parquet", tables.rows_table(rows, tables.schema(columns, ("STR", "TUM")))
        )
    block = re.search(r"```python\n(.*?)```", text_of(page), flags=re.DOTALL)
    assert block

    read: dict[str, Any] = {}
    exec(block[1], read)

    assert read["slides"].to_dict("records")[0]["status"] == "ok"
    assert {"prob_STR", "prob_TUM", "tissue_fraction"} <= set(read["tiles"].columns)


def test_the_page_on_reliability_lists_every_cause_and_whether_it_is_tried_again() -> None:
    listed = re.findall(r"^\| `(\w+)` \| (again|asked) \| ", text_of("docs/reliability.md"), flags=re.MULTILINE)

    assert listed == [(cause.value, "again" if cause.transient else "asked") for cause in Cause]
