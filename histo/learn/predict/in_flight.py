"""Keep several batches in flight on a device, and choose their size."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

FIRST_SIZE = 32
GREATEST_SIZE = 256
"""No region has more tiles."""
STEP = 32
"""A batch of other sizes is filled up to a multiple of this, so that a device sees few shapes."""
LEAST_GAIN = 1.05
"""By which a batch of twice the size must be faster, to be worth its memory."""

Item = TypeVar("Item")
Ticket = TypeVar("Ticket")
Result = TypeVar("Result")


def in_flight(
    items: Iterable[Item], submit: Callable[[Item], Ticket], collect: Callable[[Ticket], Result], depth: int
) -> Iterator[Result]:
    """Yield the results of items in order, each collected when `depth` of them, it among them, were submitted.

    Examples:
        >>> steps = in_flight([1, 2, 3], lambda n: print("submit", n) or n, lambda n: print("collect", n) or n, depth=2)
        >>> sum(steps)
        submit 1
        submit 2
        collect 1
        submit 3
        collect 2
        collect 3
        6
    """
    waiting: deque[Ticket] = deque()
    for item in items:
        waiting.append(submit(item))
        if len(waiting) == depth:
            yield collect(waiting.popleft())
    while waiting:
        yield collect(waiting.popleft())


def filled_size(count: int, batch_size: int) -> int:
    """Return to how many tiles a batch is filled up.

    Examples:
        >>> [filled_size(count, batch_size=80) for count in (1, 32, 33, 70, 80)]
        [32, 32, 64, 80, 80]
        >>> filled_size(3, batch_size=8)
        8
    """
    return min(batch_size, -(-count // STEP) * STEP)


def find_batch_size(rate: Callable[[int], float | None]) -> int | None:
    """Find how many tiles a batch should have: twice as many as long as that is faster and memory suffices.

    Args:
        rate: Gives the tiles per second of a size; None if memory does not suffice for it.

    Returns:
        A power of two up to `GREATEST_SIZE`; None if memory does not suffice for one tile.

    Examples:
        >>> find_batch_size({32: 900.0, 64: 1000.0, 128: 1001.0}.get)  # 128 gains too little
        64
        >>> find_batch_size({4: 80.0}.get)  # no memory for more
        4
    """
    size, best = FIRST_SIZE, rate(FIRST_SIZE)
    while best is not None and size < GREATEST_SIZE:
        twice = rate(2 * size)
        if twice is None or twice < LEAST_GAIN * best:
            return size
        size, best = 2 * size, twice
    while best is None and size > 1:
        size //= 2
        best = rate(size)
    return None if best is None else size
