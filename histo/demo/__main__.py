"""Module `python -m histo.demo`: the same as `histo demo`."""

import sys

from histo.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("demo", sys.argv[1:], prog="python -m histo.demo"))
