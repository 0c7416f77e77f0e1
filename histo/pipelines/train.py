"""Train: source -> split -> stream -> loop (a generator of epochs) -> checkpoints -> bundle -> evaluation."""

from typing import Any

from histo.learn.bundle import Bundle, TileInput, VolumeInput, described
from histo.learn.history import History
from histo.learn.layout import VolumeLayout
from histo.learn.model import Network
from histo.learn.split import split_hash
from histo.pipelines.cluster import check_shared, place, session
from histo.pipelines.continued import break_offs
from histo.pipelines.record import claim_output, versions
from histo.pipelines.say import say
from histo.pipelines.train_checks import check_history, check_network, check_place, check_start, earlier_record
from histo.pipelines.train_data import TrainingData, gather, read_training_source
from histo.pipelines.train_progress import Watcher
from histo.pipelines.train_run import run_training
from histo.pipelines.train_spec import TrainingSpec, TrainSpec
from histo.pipelines.train_worker import describe_network, initial_network
from histo.report.text import format_scores

GOES_ON = "--resume goes on after the last epoch that has ended"


def train(spec: TrainSpec) -> int:
    """Run a training job; returns the exit code.

    Raises:
        HistoError: If the data or the settings are bad, or training failed.
    """
    history = History(spec.out)
    earlier = earlier_record(spec, "train", has_begun=bool(history.last))
    if earlier and earlier["exit_code"] == 0:
        say(f"{spec.out}: the run is complete; bundle: {spec.out / 'model'}")
        return 0
    check_history(spec.out, history)
    check_place(spec, [*spec.data, *(spec.test or [])])
    source = read_training_source(spec)
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


def describe_bundle(spec: TrainingSpec, data: TrainingData, network: Network) -> Bundle:
    """Describe the bundle that is to be trained; its weights, and the metrics of its epoch, are yet to come.

    Raises:
        UsageError: If a class has no name that can be shown, or a number is out of its bounds.
    """
    layout = data.source.images.layout
    with described("the model to be trained", "change the settings or the data"):
        return Bundle(
            task=layout.task,
            architecture=describe_network(spec, layout),
            classes=data.source.classes,
            input=_describe_input(spec, data, network),
            origin={
                "data_fingerprint": data.found.fingerprint(data.source),
                "split_sha256": split_hash([case.case_id for case in data.source.cases], data.splits),
                "run": str(spec.out),
                "start_from": spec.start_from and str(spec.start_from),
                "versions": versions(),
            },
            weights_sha256="",
        )


def _describe_input(spec: TrainingSpec, data: TrainingData, network: Network) -> TileInput | VolumeInput:
    layout, normalisation = data.source.images.layout, network.normalisation
    seen: dict[str, Any] = {"size_px": spec.size_px, "mean": normalisation.mean, "std": normalisation.std}
    if isinstance(layout, VolumeLayout):
        return VolumeInput(series=layout.series, slices=layout.slices, preparation=layout.preparation, **seen)
    return TileInput(mpp=data.mpp, **seen)


def summary(data: TrainingData) -> str:
    """Say what a run learns from, what is beside it, and what a person should know."""
    names = ("train", "val", "test", None)
    counts = [f"{data.splits.count(name)} {name or 'not usable'}" for name in names if name in data.splits]
    return "\n".join([f"{data.source.describe()}: {', '.join(counts)}", *data.notes])
