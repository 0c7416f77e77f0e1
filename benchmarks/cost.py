"""What a command costs, whole: wall time, CPU time and memory of its process and of all that it starts. Linux only.

Ray's daemons are not children of the job that starts them, so the process that measures adopts them, and looks at
/proc five times a second. What a process used since the last look before its end is missed, and helpers that live
shorter altogether: 0.3 to 0.4 of the 18 CPU-seconds of a label job that does little but start, in three runs held
against the kernel's account of a control group.
"""

import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_ADOPT = 36  # PR_SET_CHILD_SUBREAPER
_LOOK_S = 0.2
_WEIGH_S = 1.0
"""Seconds between looks at the memory, which take longer."""
_END_S = 30.0
"""Seconds that daemons have to end after their job."""
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        wall_s: Until its own process ended.
        cpu_s: User and system time of all processes.
        peak_mb: Greatest memory of all processes together; shared pages count once (PSS).
        output: What it printed.
        said_s: Until it printed something, or its end if it printed nothing.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    output: str
    said_s: float


def measure(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> Cost:
    """Run a command to its end and to that of everything it started.

    Raises:
        SystemExit: If it fails; with its output.
    """
    ctypes.CDLL(None).prctl(_ADOPT, 1, 0, 0, 0)
    cpu_s: dict[tuple[int, int], float] = {}
    peak_mb, weighed = 0.0, 0.0
    with tempfile.TemporaryFile() as log:
        start = time.monotonic()
        words = [str(word) for word in command]
        process = subprocess.Popen(words, stdout=log, stderr=log, env=os.environ | (environment or {}))  # noqa: S603
        wall_s = said_s = 0.0
        while (below := _look(cpu_s)) and time.monotonic() - start < (wall_s or float("inf")) + _END_S:
            if time.monotonic() - weighed > _WEIGH_S:
                peak_mb, weighed = max(peak_mb, sum(map(_memory_mb, below))), time.monotonic()
            if os.fstat(log.fileno()).st_size:
                said_s = said_s or time.monotonic() - start
            if process.poll() is None:
                time.sleep(_LOOK_S)
                continue
            wall_s = wall_s or time.monotonic() - start
            with suppress(ChildProcessError):  # adopted ones; until the job has ended, they stay and can be read
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
        log.seek(0)
        output = log.read().decode(errors="replace")
    if process.wait():
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}\n{output}")
    return Cost(wall_s, sum(cpu_s.values()), peak_mb, output, said_s or wall_s)


def _look(cpu_s: dict[tuple[int, int], float]) -> list[int]:
    """Note the CPU time of every process below this one, by its id and its start; return their ids."""
    stats = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            user, system, begun = int(fields[11]), int(fields[12]), int(fields[19])
            stats[int(folder.name)] = (int(fields[1]), begun, (user + system) * _TICK_S)
    below = {os.getpid()}
    while more := {pid for pid, (parent, *_) in stats.items() if parent in below} - below:
        below |= more
    below.remove(os.getpid())
    cpu_s.update({(pid, stats[pid][1]): stats[pid][2] for pid in below})
    return sorted(below)


def _memory_mb(pid: int) -> float:
    """Return a process's memory, of which pages that others share count in part; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
