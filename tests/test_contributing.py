"""What contributors and their tools read: CONTRIBUTING, SECURITY, CITATION, CI, issue forms, hooks before a commit."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
HOOKS = ROOT / ".pre-commit-config.yaml"
PAGES = ("CONTRIBUTING.md", "SECURITY.md")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def lint_commands() -> list[str]:
    """The commands of `make lint`."""
    recipe = text("Makefile").partition("\nlint: setup\n")[2].partition("\n\n")[0]
    return [line.strip() for line in recipe.splitlines()]


@pytest.mark.parametrize("path", [*FORMS, *WORKFLOWS, HOOKS, ROOT / "CITATION.cff"], ids=lambda path: path.name)
def test_a_file_for_tools_is_a_mapping(path: Path) -> None:
    assert isinstance(read(path), dict)


def test_the_workflow_runs_what_a_developer_runs() -> None:
    (workflow,) = [read(path) for path in WORKFLOWS]
    steps = workflow["jobs"]["check"]["steps"]

    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert workflow["jobs"]["check"]["runs-on"].startswith("ubuntu")


def test_the_workflow_takes_the_lowest_python_that_the_project_admits() -> None:
    (workflow,) = [read(path) for path in WORKFLOWS]
    (python,) = [
        step["with"] for step in workflow["jobs"]["check"]["steps"] if "python-version" in step.get("with", {})
    ]

    assert PROJECT["project"]["requires-python"].startswith(f">={python['python-version']},")
    assert python["cache"] == "pip"
    assert all((ROOT / name).is_file() for name in python["cache-dependency-path"].split())


def test_hooks_run_the_commands_of_lint_with_the_tools_of_the_environment() -> None:
    (repo,) = read(HOOKS)["repos"]

    commands = [hook["entry"] for hook in repo["hooks"]]

    assert repo["repo"] == "local"
    assert commands == [line.replace("$(BIN)", ".venv/bin").replace(" --check", "") for line in lint_commands()]
    assert all(hook["language"] == "system" and hook["pass_filenames"] is False for hook in repo["hooks"])


def test_the_citation_names_the_version_of_the_package() -> None:
    citation = read(ROOT / "CITATION.cff")

    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": "The histo authors"}]
    assert citation["message"]
    assert citation["title"]


def test_a_bug_is_reported_with_what_it_takes_to_see_it() -> None:
    fields = {
        field["id"]: field for field in read(ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml")["body"] if "id" in field
    }

    assert {"command", "run", "row", "version"} <= fields.keys()
    assert fields["command"]["validations"]["required"]
    assert fields["version"]["validations"]["required"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_an_issue_form_has_what_the_host_asks_for(path: Path) -> None:
    form = read(path)
    asked = [field for field in form["body"] if field["type"] != "markdown"]

    assert form["name"]
    assert form["description"]
    assert {field["type"] for field in form["body"]} <= {"markdown", "textarea", "input", "dropdown", "checkboxes"}
    assert len({field["id"] for field in asked}) == len(asked)
    assert all(field["attributes"]["label"] for field in asked)


def test_every_make_target_that_contributing_names_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)", text("CONTRIBUTING.md")))

    assert {"quick", "test", "lint", "check-gpu"} <= named
    assert named <= set(re.findall(r"^([a-z-]+):", text("Makefile"), flags=re.MULTILINE))


def test_the_times_of_contributing_are_those_of_the_decision() -> None:
    times = set(re.findall(r"\b(\d+) s\b", text("CONTRIBUTING.md")))
    decision = text("docs/decisions/0014-how-tests-run.md")

    assert len(times) == 4
    assert {time for time in times if not re.search(rf"\b{time}\b", decision)} == set()


def test_every_marker_that_contributing_names_exists() -> None:
    known = {line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    (sentence,) = re.findall(r"Markers name the needs of a test: (.*?)\.\n", text("CONTRIBUTING.md"), flags=re.DOTALL)

    assert set(re.findall(r"`(\w+)`", sentence)) == known


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    words = re.findall(r"`([^`\s]+)`|\]\(([^)]+)\)", text(page))
    named = {one or other for one, other in words}
    files = {
        name for name in named if "..." not in name and re.match(r"(tests|docs|histo|\.ci)/|\w+\.(md|toml|txt)$", name)
    }

    assert len(files) > 5
    assert {name for name in files if not (ROOT / name).exists()} == set()


def test_the_changelog_has_the_sections_of_its_format_in_their_order() -> None:
    head, newest, *_ = re.split(r"^## ", text("CHANGELOG.md"), flags=re.MULTILINE)
    order = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    sections = re.findall(r"^### (.*)$", newest, flags=re.MULTILINE)

    assert "https://keepachangelog.com/en/1.1.0/" in head
    assert newest.startswith("[Unreleased]\n")
    assert sections == [name for name in order if name in sections]
