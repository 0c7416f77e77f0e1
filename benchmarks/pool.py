"""`python benchmarks/pool.py`: what a unit of work costs the driver in Ray Data's pool of actors, and in a plain one.

Two actors do nothing with rows of 5 kB, one row per unit of work, as a region of a slide is. Rounds are interleaved;
printed are medians of the steady rate, and the growth of the driver's unshared memory per unit. Linux only.
"""

import argparse
import logging
import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def private_kb() -> int:
    """Return the unshared memory of this process."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"^Private_\w+: +(\d+) kB", text, flags=re.MULTILINE))


def rows(slide: int, count: int) -> list[Row]:
    """Make the units of one slide."""
    return [{"slide": slide, "tiles": list(range(256)), "work": "w" * 3000} for _ in range(count)]


class Worker:
    """Does nothing with a unit, and answers with a summary."""

    def __call__(self, row: Row) -> Row:
        """Answer."""
        return {"slide": row["slide"], "summary": "s" * 300}


def by_ray_data(slides: int, units: int, done: Callable[[], None]) -> None:
    """Plan slides and do their units in one graph, each unit in a block of its own."""
    import ray.data  # noqa: PLC0415

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.target_max_block_size = False, 1
    graph = (
        ray.data.from_items(list(range(slides)), override_num_blocks=slides)
        .flat_map(lambda row: rows(row["item"], units), num_cpus=0.1)
        .map(Worker, compute=ray.data.ActorPoolStrategy(size=2), num_cpus=0.9)  # type: ignore[arg-type] # Ray makes it
    )
    for _ in graph.iter_rows():
        done()


def by_actors(slides: int, units: int, done: Callable[[], None]) -> None:
    """Plan slides as tasks, and give their units to two actors, two at a time to each."""
    import ray  # noqa: PLC0415

    plan, worker = ray.remote(num_cpus=0.1)(rows), ray.remote(num_cpus=0.9)(Worker)
    free: list[Any] = [worker.remote() for _ in range(2)] * 2
    in_hand: dict[Any, Any] = {}
    for row in (row for slide in range(slides) for row in ray.get(plan.remote(slide, units))):
        if not free:
            (ready,), _ = ray.wait(list(in_hand), num_returns=1)
            ray.get(ready)
            free.append(in_hand.pop(ready))
            done()
        actor = free.pop(0)
        in_hand[actor.__call__.remote(row)] = actor
    for ref in in_hand:
        ray.get(ref)
        done()


def measure(way: Callable[[int, int, Callable[[], None]], None], slides: int, units: int) -> tuple[float, float]:
    """Return units per second and kB per unit, from the first tenth on."""
    count, start = 0, (0.0, 0)

    def done() -> None:
        nonlocal count, start
        count += 1
        if count == slides * units // 10:
            start = (time.perf_counter(), private_kb())

    way(slides, units, done)
    left = count - slides * units // 10
    return left / (time.perf_counter() - start[0]), (private_kb() - start[1]) / left


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--units", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    import ray  # noqa: PLC0415

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ways = {"Ray Data, a block per unit": by_ray_data, "plain actors": by_actors}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(asked.rounds):
        for name, way in ways.items():
            found[name].append(measure(way, asked.slides, asked.units))
    print(f"{asked.slides * asked.units} units, {asked.rounds} rounds")
    print("| way | units/s | kB of the driver per unit |\n|---|---|---|")
    for name, figures in found.items():
        rate, kb = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"| {name} | {rate:.0f} | {kb:.1f} |")
    ray.shutdown()


if __name__ == "__main__":
    main()
