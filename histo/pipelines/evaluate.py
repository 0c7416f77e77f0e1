"""Command `evaluate`: check bundle and cases before torch and Ray are loaded."""

from histo.errors import UsageError
from histo.learn.bundle import find_bundle, read_bundle
from histo.learn.openvino.record import FOLDER, read_conversion
from histo.learn.predict.precision import require_precision
from histo.pipelines.evaluation.cases import case_reader, find_training_run
from histo.pipelines.evaluation.spec import EvaluateSpec
from histo.remote.cache import held
from histo.run.record import check_command
from histo.run.run_folder import RunFolder
from histo.run.say import say
from histo.store import is_there


def evaluate(spec: EvaluateSpec) -> int:
    """Run an evaluation job; returns the exit code. What is wrong with bundle or cases is said before Ray loads.

    Raises:
        HistoError: If the data or the settings are bad.
    """
    model = find_bundle(spec.model, spec.epoch)
    copy = held(model)
    bundle = read_bundle(copy)
    require_precision(spec.precision, read_conversion(copy / FOLDER, copy), copy)
    _check_place(spec)
    run = find_training_run(spec, bundle)
    look = case_reader(spec, bundle, run)
    with RunFolder(spec.out, "evaluate", resume="then give the same command") as folder:
        _check_place(spec)  # another run may have ended there meanwhile
        cases = look()
        say("\n".join([cases.source.describe(), *cases.notes]))
        if cases.seen:
            seen = f"{cases.seen} of these {cases.source.noun} were trained on, or chose the epoch"
            say(f"{seen}: the scores are too good")
        from histo.pipelines.evaluation.job import evaluate_cases  # noqa: PLC0415 -- it loads torch and Ray

        return evaluate_cases(folder, spec, model, bundle, cases, run)


def _check_place(spec: EvaluateSpec) -> None:
    check_command(spec.out, "evaluate")
    if is_there(spec.out / "metrics.json"):
        raise UsageError(f"--out {spec.out}: already holds a run; give another folder, or remove this one")
