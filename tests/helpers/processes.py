"""What runs below a process, by the title that it has."""

import subprocess
from contextlib import suppress

import psutil


def descendants(pid: int, *titles: str) -> set[int]:
    """Return the processes below one, of which the title begins with one of `titles`."""
    try:
        return {below.pid for below in psutil.Process(pid).children(recursive=True) if has_title(below.pid, *titles)}
    except psutil.NoSuchProcess:
        return set()


def has_title(pid: int, *titles: str) -> bool:
    """Whether a process is there and has such a title; one that has ended, and was not waited for, has none."""
    try:
        return " ".join(psutil.Process(pid).cmdline()).startswith(titles)
    except psutil.NoSuchProcess:
        return False


def kill_with_descendants(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and all below it, at once."""
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for one in below:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
    psutil.wait_procs(below, timeout=30)
