"""Entry script: `ray job submit --working-dir . -- python jobs/label.py ...`; see `histo/pipelines/label.py`."""

import sys

from histo.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("label", sys.argv[1:], prog="jobs/label.py"))
