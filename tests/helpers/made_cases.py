"""Cases without pixels, and surveys that found what a test wants them to."""

from collections.abc import Sequence

import numpy as np

from histo.learn.data.images import ArrayImages, Content
from histo.learn.data.inspection import Inspection, make_inspection
from histo.learn.data.listing import Split
from histo.learn.data.source import Case, Source


def make_source(
    counts: list[int],
    splits: Sequence[Split | None] = (),
    groups: Sequence[str | None] = (),
    sources: Sequence[str] = (),
) -> Source:
    labels = np.repeat(np.arange(len(counts)), counts).tolist()
    cases = tuple(
        Case(
            f"c{i}",
            label,
            splits[i] if splits else None,
            groups[i] if groups else None,
            sources[i] if sources else "",
        )
        for i, label in enumerate(labels)
    )
    return Source(tuple(f"K{i}" for i in range(len(counts))), cases, ArrayImages(()))


def survey_of(source: Source, contents: Sequence[int | None] = ()) -> Inspection:
    """A survey that found image number `i` to have content `contents[i]`, None for a broken one."""
    values = contents or range(len(source.cases))
    return make_inspection([f"c{i}: broken" if v is None else Content(str(v), 8) for i, v in enumerate(values)])
