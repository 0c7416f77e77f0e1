"""Entry script: `ray job submit --working-dir . -- python jobs/convert.py ...`; see `histo/pipelines/convert.py`."""

import sys

from histo.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("convert", sys.argv[1:], prog="jobs/convert.py"))
