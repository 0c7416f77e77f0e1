"""Train on a source in a Ray session: network, split, run, last lines."""

from typing import Any

from histo.learn.data.source import Source
from histo.learn.fit.history import History
from histo.learn.network.model import Network
from histo.pipelines.training.checks import check_start, check_untouched
from histo.pipelines.training.data import TrainingData, gather
from histo.pipelines.training.network import check_history, check_network, describe_bundle, initial_network
from histo.pipelines.training.progress import Watcher
from histo.pipelines.training.run import run_training
from histo.pipelines.training.spec import TrainSpec
from histo.report.text import format_scores
from histo.run.cluster import check_shared, session
from histo.run.interruption import interruptible
from histo.run.placement import place
from histo.run.run_folder import RunFolder
from histo.run.say import say

GOES_ON = "--resume goes on after the last epoch that has ended"
WRITTEN = ("checkpoints", "figures", "model", "val", "test")
"""Folders of a training run that a killed process may leave drafts in."""


def train_source(spec: TrainSpec, source: Source, history: History, earlier: dict[str, Any] | None) -> int:
    """Train on a source; returns the exit code.

    Args:
        spec: The settings.
        source: The cases.
        history: Of the run.
        earlier: Record of the execution that is continued.

    Raises:
        HistoError: If the data or the settings are bad, or training failed.
    """
    check_history(spec.out, history)
    network = initial_network(spec, source.classes, source.images.layout)
    check_network(spec, network, source.images.layout)
    with RunFolder(spec.out, "train", WRITTEN, resume="--resume goes on") as folder:
        check_untouched(spec, begun_before=earlier is not None, begun_now=bool(history.last))
        return _train(folder, spec, source, network, history, earlier)


def _train(
    folder: RunFolder,
    spec: TrainSpec,
    source: Source,
    network: Network,
    history: History,
    earlier: dict[str, Any] | None,
) -> int:
    data = gather(spec, source, history)
    check_start(spec, data.content_hashes("val"), data.content_hashes("test"))
    bundle = describe_bundle(spec, data, network)
    say(summary(data))
    with session(spec.workers) as resources:
        placement = place(spec.workers, spec.device, resources, cpu_workers=1)
        check_shared(spec.out, *spec.data, *(spec.test or []), *spec.weight_files)
        with interruptible(spec.out, GOES_ON), Watcher({"": spec.out}, spec.most_epochs, source.noun):
            result = run_training(folder, spec, data, bundle, placement, earlier)
    best, test = result["best"], result["test"]
    validated = best["val_accuracy"] is not None
    which = f"{spec.fit.bundle_epoch if validated else 'last'} epoch {best['epoch']}"
    score = f"val_accuracy {best['val_accuracy']:.4f}" if validated else "nothing was held out to validate it"
    say(f"{which}: {score}; bundle: {spec.out / 'model'}")
    if test:
        say(f"test split:\n{format_scores(test, source.noun)}\ntables and pictures: {spec.out / 'test'}")
    return 0


def summary(data: TrainingData) -> str:
    """Say what a run learns from, what is beside it, and what a person should know."""
    names = ("train", "val", "test", None)
    counts = [f"{data.splits.count(name)} {name or 'not usable'}" for name in names if name in data.splits]
    return "\n".join([f"{data.source.describe()}: {', '.join(counts)}", *data.notes])
