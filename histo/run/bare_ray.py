"""Leave out of a private Ray the processes that clusters and dashboards need.

`ray.init` starts them whatever it is told, and waits for some: the monitor of the autoscaler, the server of the
dashboard (without a dashboard it serves usage statistics, which are off), the monitor that passes on the lines of
workers (which are not shown), and, where `ray[default]` is installed, a web server in the agent of every node. Ray has
no setting for them. They are left out of one that serves this process alone; where another Ray than the one that this
was written for calls them otherwise, they start, and cost what they cost.

`ray.init` also asks once a second whether the node is there; it is asked fifty times a second here.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import ray._private.node
import ray._private.services
import ray._private.state

_LEFT_OUT = ("start_monitor", "start_api_server", "start_log_monitor")
"""Methods of Ray's node that start them; `ray start` has flags for the first and the last."""
_FOR_DASHBOARDS = "ray.dashboard.optional_deps"
"""Loads what `ray[default]` brings; Ray takes it for not installed if that cannot be imported."""
_ASK_S, _ASKED_S = 0.02, 10.0
"""Between questions, and how long; then it is left to Ray."""
_services: Any = ray._private.services  # noqa: SLF001 -- see above
_state: Any = ray._private.state  # noqa: SLF001 -- see above


@contextmanager
def bare_ray() -> Iterator[None]:
    """Leave them out of a Ray that is started within."""
    with ExitStack() as stack:
        for name in _LEFT_OUT:
            stack.enter_context(replaced(ray._private.node.Node, name, _nothing))  # noqa: SLF001 -- see the module
        stack.enter_context(_not_installed(_FOR_DASHBOARDS))
        wait = _asked_often(getattr(_services, "get_node", None))
        stack.enter_context(replaced(_services, "get_node", wait))
        yield


def _nothing(*_: object, **__: object) -> None:
    pass


def _asked_often(get_node: Callable[[str, str], object] | None) -> Callable[[str, str], object]:
    """Wrap the function of Ray's that returns a node, and waits for it in steps of a second."""

    def wrapped(gcs_address: str, node_id: str) -> object:
        with suppress(AttributeError, KeyError, TypeError):
            state = _state.GlobalState()
            state._initialize_global_state(_services._get_gcs_client_options(gcs_address))  # noqa: SLF001 -- see above
            end = time.monotonic() + _ASKED_S
            while time.monotonic() < end and all(node["NodeID"] != node_id for node in state.node_table()):
                time.sleep(_ASK_S)
        assert get_node
        return get_node(gcs_address, node_id)

    return wrapped


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
