"""Clusters of several nodes on this machine, without the processes that serve dashboards and terminals."""

from collections.abc import Mapping
from typing import Any

from ray.cluster_utils import Cluster

from histo.run.bare_ray import bare_ray

NODE: Mapping[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


def make_cluster(*nodes: Mapping[str, Any]) -> Cluster:
    """Start nodes of the given resources; the first one is the head."""
    head, *others = nodes
    with bare_ray():
        cluster = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": False})
        for node in others:
            cluster.add_node(**node)
    return cluster
