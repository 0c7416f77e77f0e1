"""Leave out of a private Ray the processes that clusters and dashboards need.

`ray.init` starts them whatever it is told, and waits for some: the monitor of the autoscaler, the server of the
dashboard (without a dashboard it serves usage statistics, which are off), the monitor that passes on the lines of
workers (which are not shown), and, where `ray[default]` is installed, a web server in the agent of every node. Ray has
no setting for them. They are left out of one that serves this process alone; where another Ray than the one that this
was written for calls them otherwise, they start, and cost what they cost.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import ray._private.node

_LEFT_OUT = ("start_monitor", "start_api_server", "start_log_monitor")
"""Methods of Ray's node that start them; `ray start` has flags for the first and the last."""
_FOR_DASHBOARDS = "ray.dashboard.optional_deps"
"""Loads what `ray[default]` brings; Ray takes it for not installed if that cannot be imported."""


@contextmanager
def bare_ray() -> Iterator[None]:
    """Leave them out of a Ray that is started within."""
    with ExitStack() as stack:
        for name in _LEFT_OUT:
            stack.enter_context(replaced(ray._private.node.Node, name, _nothing))  # noqa: SLF001 -- see the module
        stack.enter_context(_not_installed(_FOR_DASHBOARDS))
        yield


def _nothing(*_: object, **__: object) -> None:
    pass


@contextmanager
def replaced(owner: Any, name: str, by: object) -> Iterator[None]:
    """Have an attribute of another library be ours for a while; one that it does not have is not made."""
    before = vars(owner).get(name)
    if before is None:
        yield
        return
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _not_installed(module: str) -> Iterator[None]:
    """Have a module be impossible to import for a while, unless it is loaded."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment] # as Python's documentation has it
    try:
        yield
    finally:
        del sys.modules[module]
