"""A training job whose sources are read: its network, its split, and its run in a Ray session."""

from typing import Any

from histo.learn.history import History
from histo.learn.source import Source
from histo.pipelines.cluster import check_shared, session
from histo.pipelines.continued import break_offs
from histo.pipelines.placement import place
from histo.pipelines.record import claim_output
from histo.pipelines.say import say
from histo.pipelines.train_checks import check_start
from histo.pipelines.train_data import TrainingData, gather
from histo.pipelines.train_progress import Watcher
from histo.pipelines.train_run import run_training
from histo.pipelines.train_spec import TrainSpec
from histo.pipelines.train_start import check_history, check_network, describe_bundle, initial_network
from histo.report.text import format_scores

GOES_ON = "--resume goes on after the last epoch that has ended"


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
    claim_output(spec.out)
    data = gather(spec, source, history)
    check_start(spec, data.content_hashes("val"), data.content_hashes("test"))
    bundle = describe_bundle(spec, data, network)
    say(summary(data))
    with session(spec.workers) as resources:
        placement = place(spec.workers, spec.device, resources, cpu_workers=1)
        check_shared(spec.out, *spec.data, *(spec.test or []), *spec.weight_files)
        with break_offs(spec.out, GOES_ON), Watcher({"": spec.out}, spec.most_epochs, source.noun):
            result = run_training(spec, data, bundle, placement, earlier)
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
