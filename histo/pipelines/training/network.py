"""Initial network of a training run, its bundle, and its last checkpoint."""

from typing import Any

import torch

from histo.learn.array_layout import Layout, VolumeLayout
from histo.learn.bundle import Architecture, Bundle, TileInput, VolumeInput, described, find_bundle, read_bundle
from histo.learn.data.split import split_hash
from histo.learn.fit.augment_spec import check_augmentation
from histo.learn.fit.checkpoint import read_state
from histo.learn.fit.history import History
from histo.learn.fit.optimizer import make_optimizer
from histo.learn.fit.phases import Phase
from histo.learn.network.backbones import dimensions_of
from histo.learn.network.model import Network, check_size, pretrained_network, random_network, trained_network
from histo.pipelines.training.checks import check_finite
from histo.pipelines.training.data import TrainingData
from histo.pipelines.training.spec import TrainingSpec
from histo.remote.cache import held
from histo.remote.location import AnyPath
from histo.run.record import versions


def check_history(out: AnyPath, history: History) -> None:
    """Make sure that the epochs of a run, if it has any, can be continued.

    Raises:
        HistoError: If the loss was not finite, or the last checkpoint is damaged.
    """
    if history.last:
        check_finite(out, history)
        read_bundle(held(history.checkpoint(history.last)), "--resume")
        read_state(history.checkpoint(history.last))


def describe_network(spec: TrainingSpec, layout: Layout) -> Architecture:
    """Describe the network that a run asks for."""
    name = spec.network.backbone
    channels = layout.channels(dimensions_of(name)) or 1  # where it sees none of these arrays, who builds it says so
    return Architecture(backbone=name, dropout=spec.network.dropout, input_channels=channels)


def initial_network(spec: TrainingSpec, classes: tuple[str, ...], layout: Layout) -> Network:
    """Build the network that training starts with: a pretrained backbone, or another run's, and a head from the seed.

    Args:
        spec: The settings.
        classes: That are to be learned.
        layout: What it is to see.

    Raises:
        UsageError: If its weights cannot be had, or are those of another network.
    """
    torch.manual_seed(spec.seed)
    architecture = describe_network(spec, layout)
    if spec.network.initial == "random":
        return random_network(architecture, len(classes), layout)
    if spec.start_from is None:
        return pretrained_network(architecture, len(classes), spec.network.weights, layout)
    folder = held(find_bundle(spec.start_from, spec.epoch, "--start-from"))
    bundle = read_bundle(folder, "--start-from")
    return trained_network(folder, bundle, classes, architecture, layout)


def check_network(spec: TrainingSpec, network: Network, layout: Layout) -> None:
    """Make sure that the network can see the images, and augmentation change them, and that every phase can be trained.

    Raises:
        UsageError: If not.
    """
    check_size(network, spec.network.backbone, layout, spec.size_px)
    check_augmentation(spec.augment, layout)
    if spec.fit.tune.epochs:
        make_optimizer(network, Phase("tune", spec.fit))


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
