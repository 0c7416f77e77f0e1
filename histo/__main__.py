"""`python -m histo JOB ...`: the same as `histo JOB ...`."""

import sys

from histo.cli import main

if __name__ == "__main__":
    sys.exit(main())
