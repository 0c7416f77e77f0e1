"""Check a training run before it starts: resume, place, initial weights."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from histo.errors import HistoError, UsageError
from histo.learn.bundle import find_bundle, read_bundle
from histo.learn.fit.history import History
from histo.pipelines.training.finished_run import find_run
from histo.pipelines.training.spec import FREE_TO_CHANGE, TrainingSpec
from histo.remote.cache import held
from histo.remote.location import AnyPath
from histo.run.record import check_command, read_record


def earlier_record(spec: TrainingSpec, command: str, *, has_begun: bool) -> dict[str, Any] | None:
    """Return the record of the run that is to be continued, if there is one.

    Args:
        spec: The settings.
        command: Name of the job.
        has_begun: Whether there is something to continue.

    Raises:
        UsageError: If there is a run that is not to be continued, or with other settings.
    """
    check_command(spec.out, command)
    if not has_begun:
        return None
    if not spec.resume:
        raise UsageError(f"--out {spec.out}: already holds a run; continue it with --resume, or give another folder")
    earlier = read_record(spec.out)
    changed = _differences(earlier["spec"], spec.model_dump(mode="json"), "")
    if changed:
        raise UsageError(f"--resume: {'; '.join(changed)}; resume with the same settings, or give another --out")
    return earlier


def check_untouched(spec: TrainingSpec, *, begun_before: bool, begun_now: bool) -> None:
    """Make sure that no other run has begun in the output folder before it was locked.

    Args:
        spec: The settings.
        begun_before: Whether there was a run to resume when its record was looked at.
        begun_now: Whether there is one.

    Raises:
        UsageError: If one has.
    """
    if begun_now and not begun_before:
        raise UsageError(f"--out {spec.out}: another run has just written there; give the command again")


def check_place(spec: TrainingSpec, inputs: Sequence[AnyPath]) -> None:
    """Make sure that results do not come to lie among the images.

    Raises:
        UsageError: If they would.
    """
    inside = [path for path in inputs if _lies_in(spec.out, path)]
    if inside:
        raise UsageError(f"--out {spec.out}: lies in {inside[0]}, whose images are read; give another folder")


def _lies_in(out: AnyPath, source: AnyPath) -> bool:
    if isinstance(out, Path) and isinstance(source, Path):
        return source.is_dir() and out.resolve().is_relative_to(source.resolve())
    return f"{out}/".startswith(f"{source}/")


def check_start(spec: TrainingSpec, validated: Sequence[str | None], tested: Sequence[str | None]) -> None:
    """Make sure that the weights that training starts with have not learned from the images that it is measured on.

    Args:
        spec: The settings.
        validated: Content hashes of the validation images, which the earlier run must not have trained on.
        tested: Those of the test images, which must not have chosen its epoch either.

    Raises:
        UsageError: If they have, and leaks are not allowed.
    """
    if spec.start_from is None or spec.split.allow_leaks:
        return
    bundle = read_bundle(held(find_bundle(spec.start_from, spec.epoch, "--start-from")))
    run = find_run(spec.start_from, bundle)
    if run is None:
        return
    trained = run.learned_from("train")
    for part, seen in (("test", run.count_seen(tested)), ("validation", sum(image in trained for image in validated))):
        if seen:
            raise UsageError(
                f"--start-from {spec.start_from}: learned from {seen} of the {part} {bundle.input.layout.noun}; "
                "start from another run, or add --split.allow-leaks"
            )


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str) -> list[str]:
    """Name the settings that differ and that change the result."""
    found = []
    for name, value in now.items():
        if f"{prefix}{name}" in FREE_TO_CHANGE:
            continue
        if isinstance(value, dict):
            found += _differences(before.get(name) or {}, value, f"{prefix}{name}.")
        elif before.get(name) != value:
            flag = f"{prefix}{name}".replace("_", "-")
            found.append(f"--{flag} is {value}, and was {before.get(name)} when the run began")
    return found


def check_finite(out: AnyPath, history: History) -> None:
    """Make sure that the loss of the last epoch is finite.

    Raises:
        HistoError: If it is not.
    """
    last = history.past()[-1]
    if not is_finite(last):
        raise HistoError(
            f"{out}: the loss is not finite in epoch {last['epoch']}; lower --fit.head.learning-rate or "
            "--fit.tune.learning-rate, look at the images, and give another --out"
        )


def is_finite(epoch: dict[str, Any]) -> bool:
    """Whether the losses of an epoch, a line of `metrics.jsonl`, are numbers."""
    return math.isfinite(epoch["train_loss"] + (epoch["val_loss"] or 0))
