"""Train in one worker: load the run, and go through its remaining epochs."""

from collections.abc import Sequence
from typing import Any

import ray.train.torch
import torch
from safetensors.torch import load_file

from histo.learn.bundle import WEIGHTS, Bundle
from histo.learn.data.listing import Split
from histo.learn.data.source import Source
from histo.learn.distributed import from_first_worker, rank
from histo.learn.fit.augment_spec import AugmentSpec
from histo.learn.fit.batch_order import BatchOrder, class_weights
from histo.learn.fit.batches import FeatureBatches, ImageBatches, Stream
from histo.learn.fit.checkpoint import read_state, write_epoch
from histo.learn.fit.history import History
from histo.learn.fit.loop import fit
from histo.learn.fit.optimizer import make_optimizer
from histo.learn.fit.phases import Phase, is_stalled, phases_left
from histo.learn.network.model import Network
from histo.learn.openvino.frozen_backbone import FrozenBackbone
from histo.learn.openvino.trace import NotConvertibleError
from histo.pipelines.training.data import read_training_source
from histo.pipelines.training.network import initial_network
from histo.pipelines.training.progress import TickFile
from histo.pipelines.training.spec import TrainSpec
from histo.pipelines.training.split_table import read_splits
from histo.remote.cache import held
from histo.run.cluster import cpus_here
from histo.run.say import say

LEAST_IMAGES = 500
"""Images that the frozen backbone must see to be worth its conversion, which takes as long as a hundred."""


def train_worker(config: dict[str, Any]) -> None:
    """Train in one of the workers; the one of rank 0 writes. A worker that is started again goes on."""
    spec = TrainSpec.model_validate_json(config["spec"])
    bundle = Bundle.model_validate_json(config["bundle"])
    history = History(spec.out, spec.keep_checkpoints)
    device = _device()
    if rank() == 0:
        history.rewind()
    past = from_first_worker(
        history.past() if rank() == 0 else [], device
    )  # other nodes may see older files for a while
    source = read_training_source(spec)
    network = initial_network(spec, source.classes, source.images.layout)
    if spec.fit.precision == "float64":
        network.double()
    if past:
        network.load_state_dict(load_file(held(history.checkpoint(len(past))) / WEIGHTS))
    network.to(device).to(memory_format=network.memory_format)
    network.set_checkpointing(spec.fit.checkpointing)
    data = _Data(spec, source, read_splits(spec.out, source), network, _loaders(config))
    progress = TickFile(spec.out)
    for phase in phases_left(spec.fit, past):
        network.stand_in = data.frozen_backbone(phase)
        optimizer = make_optimizer(network, phase)
        if past and past[-1]["phase"] == phase.name:
            optimizer.load_state_dict(read_state(history.checkpoint(len(past)))[1])
        train, val = data.streams(phase)
        events = fit(network, optimizer, phase, train, val, data.class_weights_K, first_epoch=len(past) + 1)
        for epoch in progress.epochs(events, phase):
            past.append({"phase": phase.name, "val_loss": epoch.val_loss})
            if rank() == 0:
                write_epoch(history, epoch, network, optimizer, bundle, spec.seed)
            if not epoch.finite:
                return
            own = [line["val_loss"] for line in past if line["phase"] == phase.name]
            if is_stalled(own, spec.fit.patience):
                break


def _loaders(config: dict[str, Any]) -> int:
    """Return how many processes decode images: beside a GPU, one for each further CPU that the worker has here."""
    loaders, gpus = int(config["loaders"]), config.get("gpus")
    return cpus_here(gpus, loaders + 1) - 1 if gpus else loaders


def _device() -> torch.device:
    """Return where this worker computes, which becomes the default of what names no device."""
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32, as where the bundle is used
    return device


class _Data:
    """The streams of a run: images, or features where the backbone is frozen and the images stay as they are."""

    def __init__(
        self, spec: TrainSpec, source: Source, splits: Sequence[Split | None], network: Network, loaders: int
    ) -> None:
        labels = source.labels()
        members = tuple(i for i, split in enumerate(splits) if split == "train")
        held_out = tuple(i for i, split in enumerate(splits) if split == "val")
        own = tuple(labels[list(members)].tolist())
        self._spec, self._network, self._loaders, self._layout = spec, network, loaders, source.images.layout
        self._order = BatchOrder(
            members, spec.fit.batch_size, spec.seed, balance=own if spec.fit.balance == "sampling" else None
        )
        augment = None if spec.augment.settings().changes_nothing else spec.augment
        self._changed = self._images(source, self._order, augment, loaders)
        self._fixed = self._images(source, BatchOrder(members, spec.fit.batch_size, shuffle=False), None, loaders)
        self._val = self._images(source, BatchOrder(held_out, spec.fit.batch_size, shuffle=False), None, loaders)
        self.class_weights_K: torch.Tensor | None = None
        if spec.fit.balance == "weights":
            weights = class_weights(own, len(source.classes))
            self.class_weights_K = torch.tensor(weights, dtype=torch.float32, device=network.device)

    def _images(self, source: Source, order: BatchOrder, augment: AugmentSpec | None, loaders: int) -> ImageBatches:
        return ImageBatches(source, order, self._spec.size_px, augment, self._network.device, loaders)

    def frozen_backbone(self, phase: Phase) -> FrozenBackbone | None:
        """Return what computes the features of a phase faster than torch, where there is such a thing and it pays."""
        frozen = phase.name == "head" and phase.spec.precision == "float32" and self._network.device.type == "cpu"
        passes = 1 if self._spec.caches_features else phase.settings.epochs
        if not frozen or self._loaders or passes * len(self._order.members) < LEAST_IMAGES:
            return None  # loaders are forked, which OpenVINO's threads may not bear
        self._network.backbone.eval()
        try:
            return FrozenBackbone(self._network, self._layout, self._spec.size_px, torch.get_num_threads())
        except NotConvertibleError as error:
            say(f"{self._spec.network.backbone}: {error}; torch computes its features")
            return None

    def streams(self, phase: Phase) -> tuple[Stream, Stream]:
        """Return the training and the validation stream of a phase."""
        if phase.name == "tune":
            return self._changed, self._val
        precision = phase.spec.precision
        val = FeatureBatches(self._network, self._val, self._val.order, precision)
        if not self._spec.caches_features:
            return self._changed, val
        return FeatureBatches(self._network, self._fixed, self._order, precision), val
