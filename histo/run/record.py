"""Record of a run, `run.json`: command, settings, versions, machine, end.

It is written at the start, and completed at the end.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from histo.errors import HistoError, UsageError
from histo.remote.location import AnyPath
from histo.spec.base import Spec
from histo.store import is_there, put_json, read_document

FILE = "run.json"
_PACKAGES = (
    "histo", "ray", "torch", "torchvision", "timm", "scikit-learn", "numpy", "pyarrow",
    "openslide-python", "openslide-bin", "openvino",
)  # fmt: skip


def check_command(out: AnyPath, command: str) -> None:
    """Make sure that a folder does not hold the results of another command.

    Raises:
        UsageError: If it does.
    """
    if is_there(out / FILE) and read_record(out)["command"] != command:
        raise UsageError(f"--out {out}: holds the results of another job; give another folder")


class RunRecord:
    """The `run.json` of one execution. As a context manager it notes how the execution ended, also by an error."""

    def __init__(
        self, folder: AnyPath, command: str, spec: Spec, earlier: dict[str, Any] | None = None, **values: Any
    ) -> None:
        self._path = folder / FILE
        self._values: dict[str, Any] = {
            "command": command,
            "argv": sys.argv,
            "spec": spec.model_dump(mode="json"),
            "started": _now(),
            "finished": None,
            "exit_code": None,
            "error": None,
            "versions": versions(),
            "git_commit": git_commit(),
            "host": _host(),
            "earlier": _executions(earlier),
            **values,
        }
        put_json(self._path, self._values)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is not None:
            code = error.exit_code if isinstance(error, HistoError) else 1
            with suppress(OSError):  # what ended the execution may be that nothing can be written any more
                self.finish(code, error=f"{kind.__name__}: {error}")

    def finish(self, exit_code: int, **values: Any) -> int:
        """Complete the record; returns the exit code."""
        self._values |= {**values, "finished": _now(), "exit_code": exit_code}
        put_json(self._path, self._values)
        return exit_code


class _Record(BaseModel):
    """What must be true of a `run.json`, whichever histo wrote it."""

    command: str
    spec: dict[str, Any]
    exit_code: int | None = None
    earlier: list[dict[str, Any]] = []


def read_record(folder: AnyPath) -> dict[str, Any]:
    """Read a run's `run.json`.

    Raises:
        UsageError: If it is missing or damaged.
    """
    path = folder / FILE
    try:
        record: dict[str, Any] = json.loads(read_document(path))
        checked = _Record.model_validate(record)
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, RecursionError):
        reason = "it is damaged"
    else:
        return record | checked.model_dump()
    raise UsageError(f"{path}: cannot be read ({reason}); put back a copy of it, or give another folder")


def past_record(folder: AnyPath) -> dict[str, Any] | None:
    """Read the `run.json` of the execution before, if there was one.

    Raises:
        UsageError: If it is damaged.
    """
    return read_record(folder) if is_there(folder / FILE) else None


def is_begun(folder: AnyPath, spec: Spec) -> bool:
    """Whether the execution before had the same settings, and did not come to its end."""
    before = past_record(folder)
    return before is not None and before["exit_code"] in (None, 1) and before["spec"] == spec.model_dump(mode="json")


def _executions(earlier: dict[str, Any] | None) -> list[dict[str, Any]]:
    """List how the executions that this one continues began and ended."""
    if earlier is None:
        return []
    names = ("argv", "started", "finished", "exit_code", "error", "host", "versions")
    return [*earlier["earlier"], {name: earlier.get(name) for name in names}]


def collection_facts(others: Mapping[str, int], linked: int, states: Mapping[str, int]) -> dict[str, Any]:
    """Say what a run found: other files by kind, links to folders, and slides or studies by what is to do."""
    return {"other_files": dict(others), "linked_folders": linked, "found": dict(states)}


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
    here = Path(__file__)
    return (
        _git(here.parent, "rev-parse", "HEAD") if _git(here.parent, "ls-files", "--error-unmatch", here.name) else None
    )


def _git(folder: Path, *words: str) -> str | None:
    try:
        answer = subprocess.run(  # noqa: S603 -- fixed commands
            ["git", "-C", str(folder), *words],  # noqa: S607 -- wherever git is
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _host() -> dict[str, Any]:
    """Describe the machine of the driver."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "processor": models[0] if models else platform.processor(),
        "cpus": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
