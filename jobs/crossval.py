"""Entry script: `ray job submit --working-dir . -- python jobs/crossval.py ...`; see `histo/pipelines/crossval.py`."""

import sys

from histo.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("crossval", sys.argv[1:], prog="jobs/crossval.py"))
