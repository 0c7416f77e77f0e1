"""Output folder of a run: writable, locked, recorded, clean at the end."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from histo import store
from histo.errors import HistoError, UsageError
from histo.remote.location import AnyPath
from histo.run.lock import sole_run
from histo.run.record import RunRecord, check_command
from histo.spec.base import Spec

_OF_PROCESSES = (ConnectionError, ChildProcessError, ProcessLookupError)


class RunFolder:
    """The output folder of one execution of a command. As a context manager it is held for this execution alone.

    On entry the folder is made, proven to be writable, locked, and looked at for results of other commands. What the
    system says within is taken for trouble with the storage, and said in one line; every file there is whole, since
    files appear whole. On exit the marks and drafts of killed processes are removed from the folders that workers write
    to.

    Args:
        path: The folder, on a file system or in object storage.
        command: What runs.
        written: Folders in it that workers write to, `staging` apart.
        resume: How the run is resumed, for messages.

    Raises:
        HistoError: If the folder cannot be written, holds something else, or another run holds it.
    """

    def __init__(
        self, path: AnyPath, command: str, written: Iterable[str] = (), resume: str = "the same command goes on"
    ) -> None:
        self.path, self.command = path, command
        self._written, self._resume = tuple(written), resume

    def __enter__(self) -> Self:
        claim(self.path)
        with ExitStack() as stack:
            stack.enter_context(_storage_errors(self.path, self._resume))
            stack.enter_context(sole_run(self.path))
            stack.callback(self._clean)
            check_command(self.path, self.command)
            self._held = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, trace)

    def _clean(self) -> None:
        """Remove what stopped workers leave when Ray has ended."""
        with suppress(OSError):  # if the storage is what failed
            remove_traces(self.path, *self._written)

    def record(self, spec: Spec, earlier: dict[str, Any] | None = None, **facts: Any) -> RunRecord:
        """Begin the record of this execution, `run.json`.

        Args:
            spec: The settings.
            earlier: Record of the execution that this one resumes.
            facts: What else it says.
        """
        return RunRecord(self.path, self.command, spec, earlier, **facts)


def claim(out: AnyPath) -> None:
    """Make an output folder, and prove that it can be written.

    Raises:
        UsageError: If it cannot.
    """
    probe = out / f".probe{store.TEMPORARY_SUFFIX}"
    try:
        with store.put_atomic(probe):
            pass
        store.remove(probe)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({error.strerror or error})") from None


@contextmanager
def _storage_errors(out: AnyPath, resume: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, _OF_PROCESSES):  # a library's own, or of what runs beside this
            raise
        outside = isinstance(error.filename, str) and not f"{error.filename}/".startswith(f"{out}/")
        where = error.filename if outside else f"--out {out}"
        raise HistoError(
            f"{where}: {error.strerror or error}; mend the storage or make room on it; {resume}"
        ) from error


def remove_traces(out: AnyPath, *folders: str) -> None:
    """Remove what processes leave where they are killed: the marks of their attempts, and drafts of files.

    Args:
        out: Output folder.
        folders: Those in it that workers write to, `staging` apart. Other folders may be those of other runs.
    """
    store.remove(out / "staging" / "attempts")
    if not isinstance(out, Path):  # what is not written to its end is not there
        return
    pattern = f".*{store.TEMPORARY_SUFFIX}"
    drafts = [*out.glob(pattern), *(draft for name in (*folders, "staging") for draft in (out / name).rglob(pattern))]
    for draft in drafts:
        store.remove(draft)
