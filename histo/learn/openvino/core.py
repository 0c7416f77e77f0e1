"""OpenVINO's core of this process, without telemetry.

OpenVINO is used from here. Its own import reports itself over the network, from a process that is forked off a thread
of this one. Nobody asked our users, and a fork of a worker with many threads may hang: an isolated process was seen to
do so for ever.
"""

import functools
import sys
from typing import Any

from histo.learn.network.spec import InferencePrecision

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # as if it were not installed

import openvino as ov  # noqa: E402 -- now

__all__ = ["core", "has_bf16", "infer_request", "ov"]

_HINTS = {"float32": "f32", "bf16": "bf16"}


@functools.cache
def core() -> ov.Core:
    """The core of this process, for as long as it lives.

    A core gives its thread a new stack to handle signals on, unmaps it when it is dropped, and puts back the one that
    it found, which may be that of a core dropped before: the next signal then kills the process without a trace.
    """
    return ov.Core()


def infer_request(model: ov.Model, threads: int, precision: InferencePrecision) -> Any:
    """Compile a graph for this CPU; returns OpenVINO's `InferRequest`, for one thread of ours at a time."""
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],  # left to itself, a CPU that has bfloat16 uses it
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # or all processes of a node pin their threads to the same cores
    }
    return core().compile_model(model, "CPU", settings).create_infer_request()


def has_bf16() -> bool:
    """Whether this CPU computes in bfloat16."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
