"""Predict and score the cases of an evaluation in a Ray session."""

from typing import Any

from histo.learn.bundle import Bundle
from histo.pipelines.evaluation.cases import Cases
from histo.pipelines.evaluation.colours import score_colours
from histo.pipelines.evaluation.spec import EvaluateSpec
from histo.pipelines.training.finished_run import FinishedRun
from histo.pipelines.training.prediction import predict_cases
from histo.remote.location import AnyPath
from histo.report.evaluation import write_evaluation
from histo.report.text import format_confusion, format_scores
from histo.run.cluster import check_shared, describe, session
from histo.run.placement import place
from histo.run.run_folder import RunFolder
from histo.run.say import say


def evaluate_cases(
    folder: RunFolder, spec: EvaluateSpec, model: AnyPath, bundle: Bundle, cases: Cases, run: FinishedRun | None
) -> int:
    """Measure a bundle on cases; returns the exit code.

    Args:
        folder: Of the results, held.
        spec: The settings.
        model: Folder of the bundle.
        bundle: What its document says.
        cases: What is evaluated.
        run: The training run of the bundle, if it is there.

    Raises:
        HistoError: If a case cannot be read, or the cluster does not do.
    """
    with session(workers=spec.workers) as resources:
        placement = place(spec.workers, spec.device, resources, cpu_workers=1)
        check_shared(spec.out, *cases.inputs, model)
        facts = describe(placement) | {"model": str(model)} | cases.facts | cases.source.facts()
        with folder.record(spec, **facts) as record:
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
