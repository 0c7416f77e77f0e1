"""constraints.txt names a version of everything that an installation for development consists of."""

import os
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINS = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in LINES) if version}


def needed(package: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> set[str]:
    """Names of all packages that a package needs here, and that these need, as far as they have the pinned versions."""
    if (package, extras) in seen:
        return set()
    seen.add((package, extras))
    found = {canonicalize_name(package)}
    if package != "histo" and metadata.version(package) != PINS.get(canonicalize_name(package)):
        return found
    for line in metadata.requires(package) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            found |= needed(requirement.name, frozenset(requirement.extras), seen)
    return found


def test_every_package_of_an_installation_has_its_version() -> None:
    packages = needed("histo", frozenset({"dev"}), set()) - {"histo"}

    assert len(packages) > 30
    assert packages - PINS.keys() == set()


def test_versions_are_exact_and_in_alphabetical_order() -> None:
    pinned = [line for line in LINES if not line.startswith("#")]

    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in pinned)
    assert [line.upper() for line in pinned] == sorted(line.upper() for line in pinned), (
        "as `sort --ignore-case` has them"
    )


def test_tests_that_run_side_by_side_are_in_groups(request: pytest.FixtureRequest) -> None:
    """xdist writes a test's group behind its name; where it does not, it deals single tests out, without a word."""
    side_by_side = "PYTEST_XDIST_WORKER" in os.environ

    assert request.node.nodeid.endswith("@test_installation") == side_by_side


def test_every_version_is_one_that_the_project_admits() -> None:
    requirements = [Requirement(line) for line in metadata.requires("histo") or ()]

    assert [
        str(r) for r in requirements if r.name != "histo" and not r.specifier.contains(PINS[canonicalize_name(r.name)])
    ] == []


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "histo" / "py.typed").read_bytes() == b""
    assert "Typing :: Typed" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
