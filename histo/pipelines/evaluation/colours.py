"""Score regressions on the colours of a run's training images."""

from typing import Any

from histo.learn.bundle import Bundle
from histo.learn.data.source import Source, class_numbers
from histo.learn.score.colour_regression import COLOURS, Features, colour_features, fit_regression
from histo.learn.score.metrics import score
from histo.pipelines.training.finished_run import FinishedRun


def score_colours(run: FinishedRun, source: Source, bundle: Bundle) -> dict[str, Any]:
    """Fit a regression for each kind of colour feature on a run's training images, and score it on a source.

    Args:
        run: Its training cases are learned from, its validation cases choose the regularisation.
        source: The cases that are scored.
        bundle: Its classes, in their order, are those of the scores.

    Returns:
        What `score` returns, by the name of the feature.

    Raises:
        UsageError: If the run's images are gone, or others.
    """
    parts = [run.part("train")[0], run.part("val")[0], source]
    labels = [class_numbers(part, bundle.classes) for part in parts]
    features = [_features(part) for part in parts]
    scores = {}
    for name in COLOURS:
        train, val, test = (part[name] for part in features)
        model = fit_regression(train, labels[0], val, labels[1])
        scores[name] = score(labels[2], model.predict_proba(test), bundle.classes)
    return scores


def _features(part: Source) -> dict[str, Features]:
    return colour_features(part.images, range(len(part.cases)))
