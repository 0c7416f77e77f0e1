"""Import from installed packages alone, never from the working folder.

Python and Ray put the working folder and that of a script before all others: a folder `dl` or `timm` that lies there
would be taken for a package.
"""

import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
"""The folder that histo itself is imported from."""


@contextmanager
def own_path() -> Iterator[None]:
    """Leave the folders of the user out for a while; see `leave_out_folders`."""
    before = sys.path[:]
    leave_out_folders()
    try:
        yield
    finally:
        sys.path[:] = before


def leave_out_folders() -> None:
    """Take the working folder and that of the script from `sys.path`; one that holds histo itself is asked last."""
    left_out = {_real(""), _real(os.path.dirname(sys.argv[0]))} - _of_python()  # noqa: PTH120 -- of no file, it is none
    kept = [entry for entry in sys.path if _real(entry) not in left_out]
    sys.path[:] = [*kept, str(HOME)] if str(HOME) in left_out else kept


def _of_python() -> set[str]:
    """Return the folders of the standard library and of installed packages, which somebody may work in as well."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return {*(_real(sysconfig.get_path(name)) for name in names), _real(site.getusersitepackages())}


def _real(entry: str) -> str:
    """Return the folder that an entry stands for; an empty one is the working folder, unless that is gone."""
    try:
        return os.path.realpath(entry)
    except OSError:
        return entry
