"""Evaluate: cases -> probabilities -> metrics and pictures, for a bundle that exists."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from histo.errors import UsageError
from histo.learn.bundle import Bundle, TileInput, check_layout, find_bundle, read_bundle
from histo.learn.converted import FOLDER, InferencePrecision, read_conversion, require_precision
from histo.learn.evaluation import RESAMPLES
from histo.learn.source import Source, read_sources
from histo.learn.subset import Subset, draw_subset
from histo.learn.survey import Survey, check_broken, check_field, survey
from histo.pipelines.cluster import Device, check_shared, describe, place, session
from histo.pipelines.colour_baseline import score_colours
from histo.pipelines.past_run import PastRun, find_run
from histo.pipelines.predict_cases import class_numbers, predict_cases
from histo.pipelines.record import RunRecord, check_job, claim_output
from histo.pipelines.say import say
from histo.pipelines.train_data import check_mpp
from histo.pipelines.train_spec import Resolutions, check_count
from histo.report.evaluation import write_evaluation
from histo.report.text import format_confusion, format_scores
from histo.spec import AbsolutePath, AbsolutePaths, Spec


class EvaluateSpec(Spec):
    """Measure a bundle on labelled tiles, with pictures and intervals. Nothing is trained."""

    model: AbsolutePath
    """Model bundle (a folder), or a training run, of which the best bundle is taken."""
    epoch: int | None = Field(None, ge=1)
    """Which epoch of the training run in --model; default: its best."""
    data: AbsolutePaths = Field([])
    """Labelled tiles: folders of class folders, .npz files, .csv or .parquet manifests, tile tables; one or several.
    Of a source with several parts, the test part. Default: what the training run held out, see --part."""
    mpp: Resolutions | None = None
    """Resolution of the images in --data (µm/px), one for all sources or one for each; they must show a field of the
    size that the bundle was trained on, to whose pixels they are resampled."""
    subset: Subset = "full"
    """How much of --data is measured on: full, tiny (100 a class), small (800), a share such as 0.1, or a count."""
    part: Literal["test", "val"] = "test"
    """Without --data: which part of the training run's own images."""
    out: AbsolutePath
    """Folder of the results; must not hold a run yet."""
    workers: int | None = Field(None, ge=1)
    """Workers that share the images; default: one for each GPU, or 1 without GPUs."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    batch_size: int = Field(32, ge=1)
    """Images per forward pass."""
    precision: InferencePrecision = "float32"
    """`bf16` is faster, and refused where its agreement with float32 is too low or unmeasured (`histo convert`)."""
    max_broken: float = Field(0.01, ge=0, le=1)
    """Share of images (0 to 1) that may be unusable; they are left out and listed."""
    resamples: int = Field(RESAMPLES, ge=0)
    """Draws of the bootstrap behind the 95 % intervals; 0 for none. Images that chose the epoch get none."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Fixes these draws, and the subset."""
    colour_baseline: bool = False
    """Fit logistic regressions on the mean colour and on a colour histogram of the run's training images, and score
    them beside the bundle: how much of the accuracy colour alone gives."""

    @model_validator(mode="after")
    def _one_source_of_cases(self) -> Self:
        if self.data and self.part != "test":
            raise ValueError("--part names a part of the training run's own images; leave it out, or --data")
        if self.mpp and not self.data:
            raise ValueError("--mpp is of the images in --data, and the training run knows its own; leave it out")
        if self.subset != "full" and not self.data:
            raise ValueError("--subset is of the images in --data; leave it out, or give --data")
        check_count("--mpp", self.mpp, self.data, "--data")
        return self


@dataclass(frozen=True)
class _Cases:
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


def evaluate(spec: EvaluateSpec) -> int:
    """Run an evaluation job; returns the exit code.

    Raises:
        HistoError: If the data or the settings are bad.
    """
    model = find_bundle(spec.model, spec.epoch)
    bundle = read_bundle(model)
    require_precision(spec.precision, read_conversion(model / FOLDER, model), model)
    check_job(spec.out, "evaluate")
    if (spec.out / "metrics.json").exists():
        raise UsageError(f"--out {spec.out}: already holds a run; give another folder, or remove this one")
    if spec.colour_baseline and bundle.task != "tiles":
        raise UsageError("--colour-baseline: volumes have no colours; leave it out")
    run = find_run(spec.model, bundle)
    if run is None and (not spec.data or spec.colour_baseline):
        flag = "--colour-baseline" if spec.colour_baseline else "without --data"
        raise UsageError(f"{flag}: needs the training run of --model {spec.model}; give the run's folder as --model")
    if run and spec.colour_baseline and not run.content_hashes("val"):
        raise UsageError("--colour-baseline: is tuned on validation images, and the run has none; leave it out")
    cases = _own_cases(spec, run) if run and not spec.data else _listed_cases(spec, bundle, run)
    say("\n".join([cases.source.describe(), *cases.notes]))
    if cases.seen:
        say(f"{cases.seen} of these {cases.source.noun} were trained on, or chose the epoch: the scores are too good")
    with session(workers=spec.workers) as resources:
        placement = place(spec.workers, spec.device, resources, cpu_workers=1)
        check_shared(spec.out, *cases.inputs, model)
        facts = describe(placement) | {"model": str(model)} | cases.facts | cases.source.facts()
        with RunRecord(spec.out, "evaluate", spec, **facts) as record:
            more: dict[str, Any] = {"seen_in_training": cases.seen}
            if spec.colour_baseline and run is not None:
                more |= {"colour_baseline": score_colours(run, cases.source, bundle)}
            predictions = predict_cases(model, cases.source, placement, spec.batch_size, spec.precision)
            resamples = 0 if spec.part == "val" else spec.resamples  # it chose the epoch: they would claim too much
            metrics = write_evaluation(spec.out, predictions, cases.source.images, resamples, spec.seed, more)
            record.finish(0, accuracy=metrics["accuracy"])
    say(format_confusion(metrics["confusion_matrix"], bundle.classes))
    say(f"{format_scores(metrics, cases.source.noun)}\ntables and pictures: {spec.out}")
    return 0


def _own_cases(spec: EvaluateSpec, run: PastRun) -> _Cases:
    """Return what a training run held out itself."""
    claim_output(spec.out)
    source, fingerprint = run.part(spec.part)
    inputs = [*run.spec.data, *(run.spec.test or [])]
    seen = run.count_seen(run.content_hashes(spec.part))
    return _Cases(source, inputs, {"data_fingerprint": fingerprint, "broken": []}, seen)


def _listed_cases(spec: EvaluateSpec, bundle: Bundle, run: PastRun | None) -> _Cases:
    """Read sources, and look at each of their images once."""
    listed = _test_part(read_sources(spec.data, numbers=bundle.classes))
    check_layout(bundle, listed.images.layout, f"--model {spec.model}")
    class_numbers(listed, bundle)
    listed = _subset(listed, spec)
    claim_output(spec.out)
    found = survey(listed)
    notes = [*check_broken(found, spec.max_broken, listed.noun), *_resolution(spec, bundle, listed, found)]
    facts = {
        "data_fingerprint": found.fingerprint(listed),
        "broken": [error for error in found.errors if error is not None],
    }
    seen = run.count_seen(found.content_hashes) if run else None
    return _Cases(listed.select(found.usable()), spec.data, facts, seen, notes)


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
