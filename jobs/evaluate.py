"""Entry script: `ray job submit --working-dir . -- python jobs/evaluate.py ...`; see `histo/pipelines/evaluate.py`."""

import sys

from histo.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("evaluate", sys.argv[1:], prog="jobs/evaluate.py"))
