"""The `histo` command: `histo train`, `histo label` and so on; the same jobs as in `jobs/`.

Exit codes: 0 all done; 2 wrong usage or configuration; 3 finished, but some slides or studies are `failed` or
`partial`; 1 anything else.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata

from histo.errors import HistoError
from histo.spec import read_spec

_JOBS = {
    "train": ("TrainSpec", "fine-tune a pretrained network on labelled tiles"),
    "crossval": ("CrossvalSpec", "train once for each fold, and predict each with the run that did not see it"),
    "label": ("LabelSpec", "write class probabilities for every tile of every slide"),
    "evaluate": ("EvaluateSpec", "measure a bundle on labelled tiles, with pictures"),
    "convert": ("ConvertSpec", "make a bundle ready for CPUs, and measure whether bfloat16 may be used"),
    "prepare tiles": ("PrepareTilesSpec", "write labelled tiles to one table, the fast form"),
    "prepare volumes": ("PrepareVolumesSpec", "make volumes of one shape of MRI or CT studies"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `histo JOB ...`; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for words in (1, 2):
        job = " ".join(arguments[:words])
        if job in _JOBS:
            return run_job(job, arguments[words:], prog=f"histo {job}")
    if arguments == ["--version"]:
        print(f"histo {metadata.version('histo')}")
        return 0
    jobs = "\n".join(f"  histo {name:17}{meaning}" for name, (_, meaning) in _JOBS.items())
    usage = f"usage: histo JOB [--help] [--config FILE.yaml] [--any.field value ...]\n\n{jobs}"
    if arguments and arguments[0] in ("-h", "--help"):
        print(usage)
        return 0
    trouble = f"unknown job {' '.join(arguments[:2])!r}" if arguments else "which job?"
    print(f"histo: {trouble}\n{usage}", file=sys.stderr)
    return 2


def run_job(name: str, argv: Sequence[str], prog: str) -> int:
    """Read the settings of one job and run it; an error that a person can act on becomes one line and an exit code."""
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # Ray reads it when it is imported
    try:
        module = name.replace(" ", "_")
        pipeline = import_module(f"histo.pipelines.{module}")
        spec = read_spec(getattr(pipeline, _JOBS[name][0]), argv, prog)
        return int(getattr(pipeline, module)(spec))
    except HistoError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 1
