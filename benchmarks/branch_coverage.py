"""Which lines and branches of histo/ the tests run, in every process that they start.

    python benchmarks/branch_coverage.py -n 2 -m 'not gpu and not chaos and not alone'

All words are pytest's; the tests are those of the working directory. Ray's workers are killed at the end of a job, and
tests kill others, so each process that has loaded histo writes down once a second what it has run. Ray's own daemons
are left out. Needs `pip install coverage==7.10.7`; 7.17 closes its data in one thread while another one writes it.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HOOK = Path(sysconfig.get_path("purelib")) / "histo_coverage.pth"
"""Python runs its line in every process that it starts."""
LINE = "import os; 'HISTO_COVERAGE' in os.environ and exec(open(os.environ['HISTO_COVERAGE']).read(), {})"

MEASURE = """
import sys

if not any("site-packages/ray/" in word and not word.endswith("default_worker.py") for word in sys.orig_argv[:4]):
    import atexit, os, threading
    import coverage

    _measured = coverage.Coverage(config_file=os.environ["HISTO_COVERAGE_CONFIG"], data_suffix=True)
    _measured.start()
    _lock, _ending = threading.Lock(), threading.Event()

    def _write():
        while not _ending.wait(1):
            with _lock:
                if "histo" in sys.modules and (running := coverage.Coverage.current()) is not None:
                    running.save()

    def _begin():
        global _writer
        _writer = threading.Thread(target=_write, daemon=True)
        _writer.start()

    def _begin_in_child():
        _lock.release()
        _begin()

    def _end():
        _ending.set()
        _writer.join(5)

    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_begin_in_child)
    _begin()
    atexit.register(_end)
"""
CONFIG = """
[run]
branch = True
parallel = True
source_pkgs = histo
data_file = {folder}/.coverage
patch = fork, _exit
disable_warnings = no-data-collected, module-not-imported, module-not-measured, trace-changed, already-imported
[paths]
histo =
    histo/
    */_ray_pkg_*/histo/
[report]
ignore_errors = True
skip_covered = True
show_missing = True
"""


def main() -> int:
    """Run the tests, and print what they ran of each file."""
    folder = Path(tempfile.mkdtemp())
    config, hook = folder / "coveragerc", folder / "measure.py"
    config.write_text(CONFIG.format(folder=folder))
    hook.write_text(MEASURE)
    HOOK.write_text(LINE + "\n")
    environment = os.environ | {"HISTO_COVERAGE": str(hook), "HISTO_COVERAGE_CONFIG": str(config)}
    try:
        tests = subprocess.run([sys.executable, "-m", "pytest", "-q", *sys.argv[1:]], env=environment, check=False)  # noqa: S603 -- what was typed
    finally:
        HOOK.unlink()
    for words in (["combine", "--quiet"], ["report"]):
        subprocess.run([sys.executable, "-m", "coverage", *words, f"--rcfile={config}"], check=True)  # noqa: S603
    return tests.returncode


if __name__ == "__main__":
    sys.exit(main())
