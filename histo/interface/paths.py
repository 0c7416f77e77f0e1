"""Paths as Python's users write them."""

import os
from pathlib import Path

StrPath = str | os.PathLike[str]


def full_path(path: StrPath) -> Path:
    """Write a path out from the root on; one that begins with `~` starts at the user's home folder."""
    return Path(path).expanduser().absolute()
