"""OpenVINO, without its telemetry, and its one core: use it from here.

Its own import reports itself over the network, from a process that is forked off a thread of this one. Nobody asked our
users, and a fork of a worker with many threads may hang: an isolated process was seen to do so for ever.
"""

import functools
import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # as if it were not installed

import openvino as ov  # noqa: E402 -- now

__all__ = ["core", "ov"]


@functools.cache
def core() -> ov.Core:
    """The core of this process, for as long as it lives.

    A core gives its thread a new stack to handle signals on, unmaps it when it is dropped, and puts back the one that
    it found, which may be that of a core dropped before: the next signal then kills the process without a trace.
    """
    return ov.Core()
