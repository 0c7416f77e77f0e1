"""Cases of an evaluation: held out by the training run, or read from sources."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from histo.errors import UsageError
from histo.learn.bundle import Bundle, TileInput, check_layout
from histo.learn.data.inspection import Inspection, check_broken, check_field, inspect_images
from histo.learn.data.source import Source, class_numbers, read_sources
from histo.learn.data.subset import draw_subset
from histo.pipelines.evaluation.spec import EvaluateSpec
from histo.pipelines.training.data import check_mpp
from histo.pipelines.training.finished_run import FinishedRun, find_run
from histo.remote.location import AnyPath


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
    inputs: Sequence[AnyPath]
    facts: dict[str, Any]
    seen: int | None
    notes: Sequence[str] = ()


def find_training_run(spec: EvaluateSpec, bundle: Bundle) -> FinishedRun | None:
    """Find the training run of the bundle, if it is there.

    Raises:
        UsageError: If the settings need it, or more than it has.
    """
    if spec.colour_baseline and bundle.task != "tiles":
        raise UsageError("--colour-baseline: volumes have no colours; leave it out")
    run = find_run(spec.model, bundle)
    if run is None and (not spec.data or spec.colour_baseline):
        flag = "--colour-baseline" if spec.colour_baseline else "without --data"
        raise UsageError(f"{flag}: needs the training run of --model {spec.model}; give the run's folder as --model")
    if run and spec.colour_baseline and not run.content_hashes("val"):
        raise UsageError("--colour-baseline: is tuned on validation images, and the run has none; leave it out")
    return run


def case_reader(spec: EvaluateSpec, bundle: Bundle, run: FinishedRun | None) -> Callable[[], Cases]:
    """List the cases of an evaluation; returns a function that looks at their images once.

    Raises:
        HistoError: If a source cannot be read, or is not for this bundle.
    """
    if run is not None and not spec.data:
        return partial(_own_cases, spec, run)
    return partial(_listed_cases, spec, bundle, run, _read_listed(spec, bundle))


def _own_cases(spec: EvaluateSpec, run: FinishedRun) -> Cases:
    """Return what a training run held out itself."""
    source, fingerprint = run.part(spec.part)
    inputs = [*run.spec.data, *(run.spec.test or [])]
    seen = run.count_seen(run.content_hashes(spec.part))
    return Cases(source, inputs, {"data_fingerprint": fingerprint, "broken": []}, seen)


def _read_listed(spec: EvaluateSpec, bundle: Bundle) -> Source:
    listed = _test_part(read_sources(spec.data, numbers=bundle.classes))
    check_layout(bundle, listed.images.layout, f"--model {spec.model}")
    class_numbers(listed, bundle.classes)
    return _subset(listed, spec)


def _listed_cases(spec: EvaluateSpec, bundle: Bundle, run: FinishedRun | None, listed: Source) -> Cases:
    """Look at each image of what was read once; returns what can be used."""
    found = inspect_images(listed)
    notes = [*check_broken(found, spec.max_broken, listed.noun), *_resolution(spec, bundle, listed, found)]
    facts = {
        "data_fingerprint": found.fingerprint(listed),
        "broken": [error for error in found.errors if error is not None],
    }
    seen = run.count_seen(found.content_hashes) if run else None
    return Cases(listed.select(found.usable()), spec.data, facts, seen, notes)


def _resolution(spec: EvaluateSpec, bundle: Bundle, source: Source, found: Inspection) -> list[str]:
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
