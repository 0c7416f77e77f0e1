"""Training loop: a generator of epochs, and of the steps on the way.

Its caller reports, saves and stops.

Every worker runs the same loop on its share of each global batch. The loss of a batch is a sum over the global batch
divided by its count, and gradients are summed over workers, so the number of workers does not change the result.
"""

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from histo.learn.distributed import gather_rows, sum_gradients, sum_over_workers
from histo.learn.fit.batches import Batch, Stream, own_rows
from histo.learn.fit.calibration import fit_temperature
from histo.learn.fit.optimizer import set_learning_rate
from histo.learn.fit.phases import Phase
from histo.learn.network.model import Network
from histo.learn.network.spec import Precision


@dataclass(frozen=True)
class Tick:
    """A step that was just taken.

    Attributes:
        epoch: Number of the epoch.
        step: Number of the step in the epoch, from 1.
        steps: Steps of an epoch.
        images: Images of the epoch so far, of all workers.
        loss: Mean over this worker's share, a tensor on its device; reading it waits for the step.
    """

    epoch: int
    step: int
    steps: int
    images: int
    loss: torch.Tensor


@dataclass(frozen=True)
class Step:
    """One optimiser step: its loss and accuracy are means over the global batch, before the weights change.

    `val_loss` and `val_accuracy` are those of the validation cases after it, where they are looked at within an epoch.
    """

    epoch: int
    step: int
    loss: float
    accuracy: float
    learning_rate: float
    val_loss: float | None = None
    val_accuracy: float | None = None


@dataclass(frozen=True)
class Validation:
    """What the network makes of the validation cases.

    Attributes:
        loss: Mean cross-entropy.
        accuracy: Share of the cases that are right.
        temperature: By which logits are to be divided, see `calibration.py`; 1 if the loss is not finite.
        logits_NK: Of all cases, over all workers, in the order of the stream's members.

    Loss, accuracy and logits are None where there are no cases.
    """

    loss: float | None
    accuracy: float | None
    temperature: float
    logits_NK: npt.NDArray[np.floating] | None


@dataclass(frozen=True)
class Epoch:
    """What a pass over the data gave; losses and accuracies are means over cases, summed over workers.

    `train_loss` is what was minimised, label smoothing and class weights included, and is measured while the weights
    change; `val_loss` is the plain cross-entropy of the weights at the end. What is of validation is None where there
    are no validation cases.
    """

    epoch: int
    phase: str
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float
    images_per_second: float
    seconds: float
    temperature: float
    steps: tuple[Step, ...]
    val_logits_NK: npt.NDArray[np.floating] | None

    @property
    def finite(self) -> bool:
        """Whether its losses are numbers, so that training can go on."""
        return math.isfinite(self.train_loss + (self.val_loss or 0))


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
) -> Iterator[Tick | Epoch]:
    """Train through a phase: yield a tick after every step, and an epoch when it ends, whose weights the network holds.

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
        training = _train_epoch(network, optimizer, phase, train, class_weights_K, epoch, tally)
        steps, validating = yield from _with_validations(training, network, phase, val)
        if phase.name == "tune" and phase.spec.tune.exact_statistics:
            settle_statistics(network, train, epoch, phase.spec.precision)
        trained = time.perf_counter() - start - validating
        train_loss, train_accuracy = tally.means()
        held_out = validate(network, val, phase.spec.precision)
        yield Epoch(
            epoch=epoch,
            phase=phase.name,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=held_out.loss,
            val_accuracy=held_out.accuracy,
            learning_rate=steps[-1].learning_rate,
            images_per_second=len(train.order.members) / trained,
            seconds=time.perf_counter() - start,
            temperature=held_out.temperature,
            steps=steps,
            val_logits_NK=held_out.logits_NK,
        )


def _with_validations(
    training: Generator[Tick, None, tuple[Step, ...]], network: Network, phase: Phase, val: Stream
) -> Generator[Tick, None, tuple[tuple[Step, ...], float]]:
    """Validate within an epoch that is long; returns its steps, and the seconds that validation took."""
    found: dict[int, Validation] = {}
    seconds = 0.0
    while True:
        try:
            tick = next(training)
        except StopIteration as end:
            steps: tuple[Step, ...] = end.value
            break
        yield tick
        if tick.step < tick.steps and tick.step % phase.validation_steps(tick.steps) == 0 and val.order.members:
            start = time.perf_counter()
            found[tick.step] = validate(network, val, phase.spec.precision)
            _set_learning(network)
            seconds += time.perf_counter() - start
    return tuple(
        replace(step, val_loss=found[number].loss, val_accuracy=found[number].accuracy) if number in found else step
        for number, step in enumerate(steps, start=1)
    ), seconds


def _set_learning(network: Network) -> None:
    """Have the network learn; its backbone's batch normalisation keeps the statistics of its pretraining."""
    network.train()
    network.backbone.eval()


def _train_epoch(
    network: Network,
    optimizer: torch.optim.Optimizer,
    phase: Phase,
    stream: Stream,
    class_weights_K: torch.Tensor | None,
    epoch: int,
    tally: _Tally,
) -> Generator[Tick, None, tuple[Step, ...]]:
    """Take one step per global batch; yields after each, and returns all."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    _set_learning(network)
    per_epoch = stream.order.steps()
    before = (epoch - phase.begin) * per_epoch
    rates = [phase.learning_rate(before + number, per_epoch) for number in range(per_epoch)]
    means = []
    images = 0
    for number, (rate, batch) in enumerate(zip(rates, stream.batches(epoch), strict=True), start=1):
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
        correct = (logits_BK.argmax(dim=1) == batch.labels_B).sum() / batch.global_count
        means.append(torch.stack([loss.detach(), correct.to(loss.dtype)]))
        images += batch.global_count
        yield Tick(epoch, number, per_epoch, images, losses_B.detach().mean())
    totals = sum_over_workers(torch.stack(means)).tolist()
    first = (epoch - 1) * per_epoch + 1
    return tuple(
        Step(epoch, first + i, loss, accuracy, rate)
        for i, ((loss, accuracy), rate) in enumerate(zip(totals, rates, strict=True))
    )


@torch.no_grad()
def settle_statistics(network: Network, stream: Stream, epoch: int, precision: Precision = "float32") -> None:
    """Give the head's normalisation the moments of an epoch's training images under the weights as they are now.

    The running ones are those of the last ten steps or so, and weights that change much in these leave them behind (Wu
    and Johnson 2021, arXiv 2105.07576).
    """
    network.eval()
    sums = torch.zeros((2, network.head.linear.in_features), dtype=torch.float64, device=network.device)
    count = 0
    for batch in stream.batches(epoch):
        features_BC = network.features(batch.inputs, precision).double()
        sums += torch.stack([features_BC.sum(dim=0), features_BC.square().sum(dim=0)])
        count += batch.global_count
    network.head.norm.set_moments(count, *sums)


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
def validate(network: Network, stream: Stream, precision: Precision = "float32") -> Validation:
    """Classify all cases of a stream, each worker its share; all return the same. The network is left evaluating.

    Args:
        network: On the device of the stream.
        stream: Cases in the order of its members, not shuffled.
        precision: See `Network.features`.
    """
    network.eval()
    if not stream.order.members:
        return Validation(None, None, 1.0, None)
    logits, labels = [], []
    for batch in stream.batches(epoch=0):
        features = batch.inputs if batch.inputs.ndim == 2 else network.features(batch.inputs, precision)
        logits.append(network.head(features))
        labels.append(batch.labels_B)
    rows, count = own_rows(stream.order), len(stream.order.members)
    logits_NK = gather_rows(torch.cat(logits), rows, count)
    labels_N = gather_rows(torch.cat(labels), rows, count)
    loss = float(cross_entropy(logits_NK.double(), labels_N))
    known_NK, truth_N = logits_NK.cpu().numpy(), labels_N.cpu().numpy()
    return Validation(
        loss=loss,
        accuracy=float((logits_NK.argmax(dim=1) == labels_N).double().mean()),
        temperature=fit_temperature(known_NK, truth_N) if np.isfinite(loss) else 1.0,
        logits_NK=known_NK,
    )
