"""Compile a graph once in a disposable process: OpenVINO crashes on some.

Of version 2026.4 it is known that the sum of two branches with group normalisation, as in `resnet50_gn`, ends the
process with SIGSEGV. Loads no torch.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from histo.learn.openvino.core import core, has_bf16, infer_request


def compiles(graph: Path, constants: Path, shape: Sequence[int]) -> bool:
    """Say whether a graph can be compiled without harm, in all precisions that this CPU has.

    Args:
        graph: OpenVINO's description.
        constants: Its weights.
        shape: Of the input, the batch included.
    """
    command = [
        sys.executable,
        "-P",
        "-m",
        "histo.learn.openvino.compile_check",
        str(graph),
        str(constants),
        *map(str, shape),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0  # noqa: S603 -- this module itself


def _main(graph: str, constants: str, *shape: str) -> None:
    for precision in ("float32", "bf16") if has_bf16() else ("float32",):
        model = core().read_model(graph, constants)
        model.reshape([int(edge) for edge in shape])
        infer_request(model, 1, precision)


if __name__ == "__main__":
    _main(*sys.argv[1:])
