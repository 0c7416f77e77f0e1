"""A virtual environment of its own for a tool that histo is held against."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ENVS = Path.home() / ".cache" / "histo-peers"
"""Where the environments are made, as a rule."""


def make_environment(folder: Path, packages: Sequence[str]) -> Path:
    """Return the Python of a tool's environment, and make it first if it is not there or not complete."""
    done = folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)  # noqa: S603
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *packages], check=True)  # noqa: S603
        done.touch()
    return folder / "bin" / "python"
