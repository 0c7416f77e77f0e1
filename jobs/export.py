"""Entry script: `ray job submit --working-dir . -- python jobs/export.py WHAT ...`; see `histo/pipelines/`."""

import sys

from histo.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
