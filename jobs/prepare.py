"""Entry script: `ray job submit --working-dir . -- python jobs/prepare.py WHAT ...`; see `histo/pipelines/`."""

import sys

from histo.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
