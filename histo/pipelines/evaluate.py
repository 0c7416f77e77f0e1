"""Evaluate: cases -> probabilities -> metrics and pictures, for a bundle that exists."""

from histo.errors import UsageError
from histo.learn.bundle import find_bundle, read_bundle
from histo.learn.converted import FOLDER, read_conversion, require_precision
from histo.pipelines.evaluate_cases import listed_cases, own_cases
from histo.pipelines.evaluate_spec import EvaluateSpec
from histo.pipelines.past_run import find_run
from histo.pipelines.record import check_job
from histo.pipelines.say import say


def evaluate(spec: EvaluateSpec) -> int:
    """Run an evaluation job; returns the exit code. What is wrong with bundle or cases is said before Ray loads.

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
    cases = own_cases(spec, run) if run and not spec.data else listed_cases(spec, bundle, run)
    say("\n".join([cases.source.describe(), *cases.notes]))
    if cases.seen:
        say(f"{cases.seen} of these {cases.source.noun} were trained on, or chose the epoch: the scores are too good")
    from histo.pipelines.evaluate_job import evaluate_cases  # noqa: PLC0415 -- it loads torch and Ray

    return evaluate_cases(spec, model, bundle, cases, run)
