"""The jobs: the only modules that import ray. Each module is one job, or one part of it."""

import sys

from histo.own_path import leave_out_folders

if sys.argv[0].endswith("default_worker.py"):  # of Ray, which imports this before anything else of histo's
    leave_out_folders()
