"""The cases of an evaluation: those that a training run held out itself, or sources that are read for it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from histo.learn.bundle import Bundle, TileInput, check_layout
from histo.learn.source import Source, class_numbers, read_sources
from histo.learn.subset import draw_subset
from histo.learn.survey import Survey, check_broken, check_field, survey
from histo.pipelines.evaluate_spec import EvaluateSpec
from histo.pipelines.past_run import PastRun
from histo.pipelines.record import claim_output
from histo.pipelines.train_data import check_mpp


@dataclass(frozen=True)
class Cases:
    """What is evaluated.

    Attributes:
        source: Usable cases.
        inputs: Files and folders that they are read from.
        facts: What the record says of them.
        seen: How many of the images the bundle was trained on; None where that is not known.
        notes: What a person should know of them, a line each.
    """

    source: Source
    inputs: Sequence[Path]
    facts: dict[str, Any]
    seen: int | None
    notes: Sequence[str] = ()


def own_cases(spec: EvaluateSpec, run: PastRun) -> Cases:
    """Return what a training run held out itself."""
    claim_output(spec.out)
    source, fingerprint = run.part(spec.part)
    inputs = [*run.spec.data, *(run.spec.test or [])]
    seen = run.count_seen(run.content_hashes(spec.part))
    return Cases(source, inputs, {"data_fingerprint": fingerprint, "broken": []}, seen)


def listed_cases(spec: EvaluateSpec, bundle: Bundle, run: PastRun | None) -> Cases:
    """Read sources, and look at each of their images once."""
    listed = _test_part(read_sources(spec.data, numbers=bundle.classes))
    check_layout(bundle, listed.images.layout, f"--model {spec.model}")
    class_numbers(listed, bundle.classes)
    listed = _subset(listed, spec)
    claim_output(spec.out)
    found = survey(listed)
    notes = [*check_broken(found, spec.max_broken, listed.noun), *_resolution(spec, bundle, listed, found)]
    facts = {
        "data_fingerprint": found.fingerprint(listed),
        "broken": [error for error in found.errors if error is not None],
    }
    seen = run.count_seen(found.content_hashes) if run else None
    return Cases(listed.select(found.usable()), spec.data, facts, seen, notes)


def _resolution(spec: EvaluateSpec, bundle: Bundle, source: Source, found: Survey) -> list[str]:
    """Compare the field of the images with the bundle's; returns what a person should know."""
    if not isinstance(bundle.input, TileInput):
        check_mpp(spec.mpp, source)
        return []
    line = check_field(spec.mpp, source, found, bundle.input)
    return [] if line is None else [line]


def _subset(source: Source, spec: EvaluateSpec) -> Source:
    """Draw the subset that is asked for, of test cases too, which `draw_subset` leaves whole."""
    cases = tuple(replace(case, split=None if case.split == "test" else case.split) for case in source.cases)
    return source.select(draw_subset(replace(source, cases=cases), spec.subset, spec.seed))


def _test_part(source: Source) -> Source:
    """Keep of each source the cases that it sets apart for testing, if it does."""
    with_test = {case.source for case in source.cases if case.split == "test"}
    members = [i for i, c in enumerate(source.cases) if c.split == "test" or c.source not in with_test]
    others = Counter(source.others) + Counter({f"{source.noun} of other parts": len(source.cases) - len(members)})
    return replace(source.select(members), others=others)
