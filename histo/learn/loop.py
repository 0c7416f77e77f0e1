"""Training as a generator of epochs. Whoever iterates it reports, saves and stops.

Every worker runs the same loop on its share of each global batch. The loss of a batch is a sum over the global batch
divided by its count, and gradients are summed over workers, so the number of workers does not change the result.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from histo.learn.collective import sum_gradients, sum_over_workers
from histo.learn.model import Network, Precision
from histo.learn.optimizer import set_learning_rate
from histo.learn.phases import Phase
from histo.learn.stream import Batch, Stream


@dataclass(frozen=True)
class Step:
    """One optimiser step: its loss is the mean over the global batch."""

    epoch: int
    step: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class Epoch:
    """What a pass over the data gave; losses and accuracies are means over cases, summed over workers.

    `train_loss` is what was minimised, label smoothing and class weights included, and is measured while the weights
    change; `val_loss` is the plain cross-entropy of the weights at the end.
    """

    epoch: int
    phase: str
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    images_per_second: float
    seconds: float
    steps: tuple[Step, ...]


class _Tally:
    """Running sums over the cases of this worker, kept on its device so that no step waits for them."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)

    def add(self, losses_B: torch.Tensor, logits_BK: torch.Tensor, labels_B: torch.Tensor) -> None:
        correct = (logits_BK.argmax(dim=1) == labels_B).sum()
        count = torch.tensor(len(labels_B), device=labels_B.device)
        self._sums += torch.stack([losses_B.detach().double().sum(), correct.double(), count.double()])

    def means(self) -> tuple[float, float]:
        """Return loss and accuracy over all workers."""
        loss, correct, count = sum_over_workers(self._sums).tolist()
        return loss / count, correct / count


def fit(
    network: Network,
    optimizer: torch.optim.Optimizer,
    phase: Phase,
    train: Stream,
    val: Stream,
    class_weights_K: torch.Tensor | None = None,
    first_epoch: int | None = None,
) -> Iterator[Epoch]:
    """Train through a phase, and yield after every epoch; the network then holds that epoch's weights.

    Args:
        network: On the device that it is to be trained on.
        optimizer: Of `make_optimizer`, for this phase.
        phase: What learns, how fast, and until when.
        train: Training cases.
        val: Validation cases.
        class_weights_K: Factor of the losses of each class; None weighs all alike.
        first_epoch: Number of the first one, later than the phase's own to continue.
    """
    for epoch in range(first_epoch or phase.begin, phase.end + 1):
        start = time.perf_counter()
        torch.manual_seed(int(np.random.default_rng((train.order.seed, epoch)).integers(2**62)))  # dropout, all alike
        tally = _Tally(network.device)
        steps = _train_epoch(network, optimizer, phase, train, class_weights_K, epoch, tally)
        trained = time.perf_counter() - start
        train_loss, train_accuracy = tally.means()
        val_loss, val_accuracy = evaluate_loss(network, val, phase.spec.precision)
        yield Epoch(
            epoch=epoch,
            phase=phase.name,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=steps[-1].learning_rate,
            images_per_second=len(train.order.members) / trained,
            seconds=time.perf_counter() - start,
            steps=steps,
        )


def _train_epoch(
    network: Network,
    optimizer: torch.optim.Optimizer,
    phase: Phase,
    stream: Stream,
    class_weights_K: torch.Tensor | None,
    epoch: int,
    tally: _Tally,
) -> tuple[Step, ...]:
    """Take one step per global batch."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    network.train()
    network.backbone.eval()  # its batch normalisation keeps the statistics of its pretraining, also where it learns
    per_epoch = stream.order.steps()
    before = (epoch - phase.begin) * per_epoch
    rates = [phase.learning_rate(before + number, per_epoch) for number in range(per_epoch)]
    losses = []
    for rate, batch in zip(rates, stream.batches(epoch), strict=True):
        set_learning_rate(optimizer, rate)
        logits_BK = network.head(_features(network, batch, phase), batch.global_count)
        losses_B = _losses(logits_BK, batch.labels_B, phase.spec.label_smoothing, class_weights_K)
        loss = losses_B.sum() / batch.global_count
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch's own
        sum_gradients(parameters)
        if phase.spec.clip_norm is not None:
            clip_grad_norm_(parameters, phase.spec.clip_norm)
        optimizer.step()
        tally.add(losses_B, logits_BK, batch.labels_B)
        losses.append(loss.detach())
    totals = sum_over_workers(torch.stack(losses)).tolist()
    first = (epoch - 1) * per_epoch + 1
    return tuple(Step(epoch, first + i, loss, rate) for i, (loss, rate) in enumerate(zip(totals, rates, strict=True)))


def _losses(
    logits_BK: torch.Tensor, labels_B: torch.Tensor, smoothing: float, class_weights_K: torch.Tensor | None
) -> torch.Tensor:
    """Return what is minimised for each sample, `(B,)`."""
    losses_B = cross_entropy(logits_BK, labels_B, reduction="none", label_smoothing=smoothing)
    return losses_B if class_weights_K is None else losses_B * class_weights_K[labels_B]


def _features(network: Network, batch: Batch, phase: Phase) -> torch.Tensor:
    """Return the features of a batch; gradients flow into the backbone only where it learns."""
    if batch.inputs.ndim == 2:
        return batch.inputs
    with torch.set_grad_enabled(phase.name == "tune"):
        return network.features(batch.inputs, phase.spec.precision)


@torch.no_grad()
def evaluate_loss(network: Network, stream: Stream, precision: Precision = "float32") -> tuple[float, float]:
    """Return mean loss and accuracy over all cases of a stream and all workers; the network is left evaluating."""
    network.eval()
    tally = _Tally(network.device)
    for batch in stream.batches(epoch=0):
        if len(batch.labels_B):
            features = batch.inputs if batch.inputs.ndim == 2 else network.features(batch.inputs, precision)
            logits_BK = network.head(features)
            tally.add(cross_entropy(logits_BK, batch.labels_B, reduction="none"), logits_BK, batch.labels_B)
    return tally.means()
