"""Spare a private Ray the helper actors of Ray Data for clusters.

For a graph Ray Data starts three processes that load it: one counts for dashboards, one shares out what the nodes have
among graphs and asks the autoscaler for more, one remembers on which node each worker is. A private Ray has one node,
one graph at a time, no autoscaler and no dashboard, so that the driver knows the answers. Where another Ray Data than
the one that this was written for makes its helpers otherwise, it makes them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.data._internal import stats
from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator
from ray.data._internal.execution.operators import actor_pool_map_operator
from ray.data._internal.utils import cached_ray_internals

from histo.run.bare_ray import replaced
from histo.run.ray_start import is_private

_TRACKER = "get_or_create_actor_location_tracker"


@dataclass(frozen=True)
class _Method:
    """A method that is called as one of an actor is."""

    call: Callable[..., Any]

    def remote(self, *arguments: Any, **named: Any) -> Any:
        """Call it here."""
        return self.call(*arguments, **named)


def _nothing(*_: object, **__: object) -> None:
    pass


class _Counter:
    """Stands for the actor that counts; whatever it is told, nobody asks for it."""

    def __getattr__(self, name: str) -> _Method:
        return _Method(_nothing)


class _Sharer:
    """Stands for the actor that shares out; a graph gets all that the node has.

    Args:
        node: Ray's description of it.
    """

    def __init__(self, node: dict[str, Any]) -> None:
        everything = ray.put({node["NodeID"]: node["Resources"]})
        self.request_resources = self.cancel_request = _Method(_nothing)
        self.get_reserved_resources = _Method(lambda _: everything)


@dataclass(frozen=True)
class _Tracker:
    """Stands for the actor that remembers where each worker is; workers get it, too.

    Attributes:
        node_id: Where all of them are.
    """

    node_id: str

    @property
    def update_actor_location(self) -> _Method:
        """Where a worker is, is known."""
        return _Method(_nothing)

    @property
    def get_actor_locations(self) -> _Method:
        """Where workers are."""
        return _Method(self._locations)

    def _locations(self, workers: Sequence[str]) -> ray.ObjectRef[dict[str, str]]:
        return ray.put(dict.fromkeys(workers, self.node_id))


@contextmanager
def without_helpers() -> Iterator[None]:
    """Answer for the helpers of graphs that run within, if this process has a Ray of its own."""
    with ExitStack() as stack:
        if is_private():
            (node,) = ray.nodes()  # type: ignore[no-untyped-call] # Ray's own
            counter, sharer, tracker = _Counter(), _Sharer(node), _Tracker(node["NodeID"])
            for module, name, helper in (
                (stats, "get_or_create_stats_actor", counter),
                (default_autoscaling_coordinator, "get_or_create_autoscaling_coordinator", sharer),
                (actor_pool_map_operator, _TRACKER, tracker),
                (cached_ray_internals, _TRACKER, tracker),
            ):
                stack.enter_context(replaced(module, name, lambda helper=helper: helper))
        yield
