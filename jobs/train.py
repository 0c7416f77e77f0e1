"""Entry script: `ray job submit --working-dir . -- python jobs/train.py ...`; see `histo/pipelines/train.py`."""

import sys

from histo.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("train", sys.argv[1:], prog="jobs/train.py"))
