"""Find the same image, or one patient, in two of training, validation, test."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from histo.errors import UsageError
from histo.learn.data.inspection import Inspection
from histo.learn.data.listing import Split
from histo.learn.data.source import Source


@dataclass(frozen=True)
class Leak:
    """Cases that belong together and are in more than one split.

    Attributes:
        members: Indices of the cases, ascending.
        group: The group that they are of; None if their content is equal.
    """

    members: tuple[int, ...]
    group: str | None


def find_leaks(source: Source, found: Inspection, splits: Sequence[Split | None]) -> list[Leak]:
    """List equal contents, and groups, that are in more than one split; by content first.

    Args:
        source: The cases.
        found: Their inspection.
        splits: Their splits; a case of none takes no part.
    """
    contents: defaultdict[str | None, list[int]] = defaultdict(list)
    groups: defaultdict[str | None, list[int]] = defaultdict(list)
    for i, split in enumerate(splits):
        if split is not None:
            contents[found.content_hashes[i]].append(i)
            groups[source.cases[i].group].append(i)
    groups.pop(None, None)
    by_content = [Leak(tuple(members), None) for members in _torn(contents.values(), splits)]
    return by_content + [Leak(tuple(m), source.cases[m[0]].group) for m in _torn(groups.values(), splits)]


def _torn(units: Iterable[list[int]], splits: Sequence[Split | None]) -> Iterator[list[int]]:
    return (members for members in units if len({splits[i] for i in members}) > 1)


def check_leaks(source: Source, found: Inspection, splits: Sequence[Split | None], allow: bool) -> list[str]:
    """Make sure that nothing leaks; returns a line for each leak, to be shown, if leaks are allowed.

    Raises:
        UsageError: If something leaks and that is not allowed.
    """
    leaks = find_leaks(source, found, splits)
    lines = [f"leak: {_describe(source, splits, leak)}" for leak in leaks]
    if leaks and not allow:
        raise UsageError(
            f"{len(leaks)} leaks between training, validation and test, the first: "
            f"{_describe(source, splits, leaks[0])}; remove or regroup such {source.noun}, or give --split.allow-leaks"
        )
    return lines


def _describe(source: Source, splits: Sequence[Split | None], leak: Leak) -> str:
    one = leak.members[0]
    other = next(i for i in leak.members if splits[i] != splits[one])
    named = " and ".join(f"{source.cases[i].case_id} ({splits[i]})" for i in (one, other))
    return f"{named} {'have the same content' if leak.group is None else f'are both of group {leak.group}'}"
