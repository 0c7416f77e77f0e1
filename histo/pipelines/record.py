"""`run.json`: what was run, with what, on what, and how it ended. Written at the start, completed at the end."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from histo.spec import Spec
from histo.store import put_json

_PACKAGES = ("histo", "ray", "torch", "torchvision", "timm", "numpy", "pyarrow", "openslide-python", "openslide-bin")


class RunRecord:
    """The `run.json` of one execution."""

    def __init__(self, folder: Path, command: str, spec: Spec) -> None:
        self._path = folder / "run.json"
        self._values: dict[str, Any] = {
            "command": command,
            "argv": sys.argv,
            "spec": spec.model_dump(mode="json"),
            "started": _now(),
            "finished": None,
            "exit_code": None,
            "versions": versions(),
            "git_commit": git_commit(),
            "host": {"name": platform.node(), "cpus": os.cpu_count(), "system": platform.platform()},
        }
        put_json(self._path, self._values)

    def add(self, **values: Any) -> None:
        """Add facts that became known, and write the file."""
        self._values |= values
        put_json(self._path, self._values)

    def finish(self, exit_code: int, **values: Any) -> int:
        """Complete the record; returns the exit code."""
        self.add(**values, finished=_now(), exit_code=exit_code)
        return exit_code


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES if _has(name)}


def _has(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def git_commit() -> str | None:
    """Return the commit of the source tree that runs, or None where it is an installed package."""
    try:
        answer = subprocess.run(  # noqa: S603 -- a fixed command
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],  # noqa: S607 -- wherever git is
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
