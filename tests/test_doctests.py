"""The examples in docstrings. Modules without any are not imported for them."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (ROOT / "histo", ROOT / "tests" / "fabricated", ROOT / "tests" / "helpers")
MODULES = [
    ".".join(path.relative_to(package.parent).with_suffix("").parts)
    for package in PACKAGES
    for path in sorted(package.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_give_what_they_show(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = doctest.testmod(import_module(module))

    assert found.attempted > 0
    assert not found.failed, capsys.readouterr().out
