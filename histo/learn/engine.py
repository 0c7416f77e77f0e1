"""OpenVINO, without its telemetry: import it from here.

Its own import reports itself over the network, from a process that is forked off a thread of this one. Nobody asked our
users, and a fork of a worker with many threads may hang: an isolated process was seen to do so for ever.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # as if it were not installed

import openvino as ov  # noqa: E402 -- now

__all__ = ["ov"]
