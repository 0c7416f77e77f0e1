"""Entry script: `ray job submit --working-dir . -- python jobs/plan.py ...`; see `histo/pipelines/plan.py`."""

import sys

from histo.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("plan", sys.argv[1:], prog="jobs/plan.py"))
