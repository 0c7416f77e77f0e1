"""Entry script: `ray job submit --working-dir . -- python jobs/report.py ...`; see `histo/pipelines/report.py`."""

import sys

from histo.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("report", sys.argv[1:], prog="jobs/report.py"))
