from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers.worker_processes import call_in_processes
from torch import nn

from histo.learn.data.source import Source, read_sources
from histo.learn.fit.augment_spec import AugmentSpec
from histo.learn.fit.batch_order import BatchOrder
from histo.learn.fit.batches import FeatureBatches, ImageBatches
from histo.learn.fit.calibration import fit_temperature
from histo.learn.fit.loop import Epoch, Tick, fit, validate
from histo.learn.fit.optimizer import make_optimizer
from histo.learn.fit.phases import FitSpec, HeadSpec, Phase, TuneSpec
from histo.learn.network.backbones import Normalisation
from histo.learn.network.model import Network


class Patches(nn.Module):
    """A backbone that needs no weights: means of patches, mixed by a fixed matrix, with a batch normalisation."""

    num_features = 16

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 16, kernel_size=8, stride=8)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.mix(images)).relu().mean(dim=(2, 3))


SPEC = FitSpec(
    batch_size=8,
    head=HeadSpec(epochs=4, learning_rate=0.02),
    tune=TuneSpec(epochs=4, learning_rate=0.001),
    schedule="constant",
    warmup_epochs=0,
)
EXACT = SPEC.model_copy(update={"tune": SPEC.tune.model_copy(update={"exact_statistics": True})})
AUGMENT = AugmentSpec(preset="geometric")


def network(dropout: float = 0.2) -> Network:
    torch.manual_seed(0)
    made = Network(Patches(), Normalisation((127.0,) * 3, (128.0,) * 3), classes=3, dropout=dropout)
    return made.to(memory_format=torch.channels_last)


def streams(source: Source, augment: AugmentSpec | None = AUGMENT) -> tuple[ImageBatches, ImageBatches]:
    train = BatchOrder(tuple(i for i in range(36) if i % 4)[:26], 8)
    val = BatchOrder(tuple(range(0, 36, 4)), 8, shuffle=False)
    return ImageBatches(source, train, 32, augment), ImageBatches(source, val, 32)


def run(
    tiles: Path,
    spec: FitSpec = SPEC,
    phase: str = "head",
    dropout: float = 0.2,
    class_weights: torch.Tensor | None = None,
) -> tuple[Network, list[Epoch]]:
    model = network(dropout)
    part = Phase("head" if phase == "head" else "tune", spec)
    train, val = streams(read_sources([tiles], None))
    return model, ends(fit(model, make_optimizer(model, part), part, train, val, class_weights))


def ends(events: Iterable[Tick | Epoch]) -> list[Epoch]:
    return [event for event in events if isinstance(event, Epoch)]


def losses(epochs: list[Epoch]) -> list[float]:
    return [value for epoch in epochs for value in (epoch.train_loss, epoch.val_loss, epoch.train_accuracy)]


def changed(before: Network, after: Network) -> set[str]:
    old, new = before.state_dict(), after.state_dict()
    return {name for name in old if not torch.equal(old[name], new[name])}


@pytest.mark.parametrize("phase", ["head", "tune"])
def test_the_loss_falls_on_separable_data(tiles: Path, phase: str) -> None:
    spec = SPEC.model_copy(update={"tune": TuneSpec(epochs=4, learning_rate=0.02)})

    _, epochs = run(tiles, spec, phase)

    assert epochs[-1].train_loss < 0.5 * epochs[0].train_loss
    assert epochs[-1].val_accuracy > 0.85
    assert {epoch.phase for epoch in epochs} == {phase}


@pytest.mark.parametrize("phase", ["head", "tune"])
def test_two_runs_of_one_seed_are_equal(tiles: Path, phase: str) -> None:
    assert losses(run(tiles, phase=phase)[1]) == losses(run(tiles, phase=phase)[1])


def test_a_frozen_backbone_stays_as_it_was(tiles: Path) -> None:
    names = changed(network(), run(tiles)[0])

    assert {name.split(".")[0] for name in names} == {"head"}


def test_a_backbone_that_learns_keeps_its_batch_statistics(tiles: Path) -> None:
    names = {name for name in changed(network(), run(tiles, phase="tune")[0]) if name.startswith("backbone")}

    assert names == {"backbone.mix.weight", "backbone.mix.bias", "backbone.norm.weight", "backbone.norm.bias"}


def test_stopping_is_a_break_and_every_step_is_recorded(tiles: Path) -> None:
    model, phase = network(), Phase("head", SPEC, begin=3)

    for event in fit(model, make_optimizer(model, phase), phase, *streams(read_sources([tiles], None))):
        if isinstance(event, Epoch) and event.epoch == 4:
            last = event
            break

    assert [step.step for step in last.steps] == [13, 14, 15, 16]
    assert all(step.epoch == 4 for step in last.steps)


def test_an_epochs_loss_is_the_mean_of_its_steps_weighted_by_their_samples(tiles: Path) -> None:
    epoch = run(tiles)[1][0]

    counts = [8, 8, 8, 2]

    expected = sum(step.loss * count for step, count in zip(epoch.steps, counts, strict=True)) / 26
    assert epoch.train_loss == pytest.approx(expected, rel=1e-5)
    right = sum(step.accuracy * count for step, count in zip(epoch.steps, counts, strict=True)) / 26
    assert epoch.train_accuracy == pytest.approx(right, rel=1e-5)


def test_every_step_is_told_as_it_is_taken(tiles: Path) -> None:
    model, phase = network(), Phase("head", SPEC)

    events = list(fit(model, make_optimizer(model, phase), phase, *streams(read_sources([tiles], None))))

    ticks, epoch = events[:4], events[4]
    assert isinstance(epoch, Epoch)
    assert [(tick.epoch, tick.step, tick.steps, tick.images) for tick in ticks if isinstance(tick, Tick)] == [
        (1, 1, 4, 8), (1, 2, 4, 16), (1, 3, 4, 24), (1, 4, 4, 26),
    ]  # fmt: skip
    assert [float(tick.loss) for tick in ticks if isinstance(tick, Tick)] == pytest.approx(
        [step.loss for step in epoch.steps]
    )


def test_steps_have_the_step_size_of_the_schedule(tiles: Path) -> None:
    spec = SPEC.model_copy(update={"schedule": "cosine", "warmup_epochs": 1.0})
    phase = Phase("head", spec)

    epochs = run(tiles, spec)[1]

    assert [step.learning_rate for epoch in epochs for step in epoch.steps] == [
        phase.learning_rate(step, 4) for step in range(16)
    ]


@pytest.mark.parametrize("phase", ["head", "tune"])
def test_validation_within_an_epoch_changes_no_training_and_is_that_of_the_weights_then(
    tiles: Path, phase: str
) -> None:
    spec = SPEC.model_copy(update={"validation_steps": 2})

    (plain, expected), (watched, found) = run(tiles, phase=phase), run(tiles, spec, phase)

    assert changed(plain, watched) == set()
    assert losses(found) == losses(expected)
    steps = [step for epoch in found for step in epoch.steps]
    assert [step.step for step in steps if step.val_loss is not None] == [2, 6, 10, 14], "not at the end of an epoch"
    assert all(step.val_loss is None for epoch in expected for step in epoch.steps)
    model, part = network(), Phase("head" if phase == "head" else "tune", spec)
    train, val = streams(read_sources([tiles], None))
    events = fit(model, make_optimizer(model, part), part, train, val)
    next(events), next(events)
    assert validate(model, val).loss == steps[1].val_loss
    assert validate(model, val).accuracy == steps[1].val_accuracy


def test_without_validation_cases_nothing_is_validated_within_an_epoch(tiles: Path) -> None:
    model, part = network(), Phase("head", SPEC.model_copy(update={"validation_steps": 1}))
    train, val = streams(read_sources([tiles], None))
    val.order = BatchOrder((), 8, shuffle=False)

    (first, *_) = ends(fit(model, make_optimizer(model, part), part, train, val))

    assert {step.val_loss for step in first.steps} == {None}


@torch.no_grad()
def test_the_validation_loss_is_a_mean_over_cases_not_over_batches(tiles: Path) -> None:
    model = network()
    _, val = streams(read_sources([tiles], None))
    everything = torch.cat([batch.inputs for batch in val.batches(0)])
    labels = torch.cat([batch.labels_B for batch in val.batches(0)])

    found = validate(model, val)

    logits = model.eval()(everything)
    assert found.loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert found.accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert found.temperature == pytest.approx(fit_temperature(logits.numpy(), labels.numpy()), rel=1e-4)
    np.testing.assert_allclose(found.logits_NK, logits.numpy(), rtol=1e-4, atol=1e-5)


def test_label_smoothing_raises_the_loss_that_is_minimised_and_not_the_validation_loss(tiles: Path) -> None:
    plain = run(tiles)[1][-1]
    smooth = run(tiles, SPEC.model_copy(update={"label_smoothing": 0.3}))[1][-1]

    assert smooth.train_loss > plain.train_loss + 0.2
    assert smooth.val_loss != plain.val_loss


def test_a_class_of_weight_zero_teaches_nothing(tiles: Path) -> None:
    model, epochs = run(tiles, class_weights=torch.tensor([1.5, 1.5, 0.0]))

    logits = model(torch.full((1, 3, 32, 32), 200, dtype=torch.uint8))
    assert epochs[-1].train_accuracy < 0.75
    assert int(logits.argmax()) != 2


def test_clipping_bounds_the_step_that_a_gradient_makes(tiles: Path) -> None:
    sgd = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "head": HeadSpec(epochs=1, learning_rate=1.0)}

    def moved(clip_norm: float | None) -> float:
        spec = SPEC.model_copy(update=sgd | {"clip_norm": clip_norm})
        after, before = run(tiles, spec)[0], network()
        pairs = zip(after.head.parameters(), before.head.parameters(), strict=True)
        return float(torch.cat([(a - b).detach().flatten() for a, b in pairs]).norm())

    assert moved(1e-3) <= 4 * 1e-3 + 1e-6
    assert moved(None) > 0.1


def test_bf16_moves_the_losses_a_little(tiles: Path) -> None:
    full, half = (
        run(tiles, SPEC.model_copy(update={"precision": precision}), "tune")[1][0].train_loss
        for precision in ("float32", "bf16")
    )

    assert half != full
    assert half == pytest.approx(full, rel=0.1)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_training_on_features_gives_the_losses_of_training_on_images(tiles: Path, precision: str) -> None:
    spec = SPEC.model_copy(update={"precision": precision})
    phase, source = Phase("head", spec), read_sources([tiles], None)

    def trained(cached: bool) -> list[Epoch]:
        model = network()
        train, val = streams(source, augment=None)
        if cached:
            fixed = ImageBatches(source, BatchOrder(train.order.members, 5, shuffle=False), 32)
            train = FeatureBatches(model, fixed, train.order, phase.spec.precision)
            val = FeatureBatches(model, val, val.order, phase.spec.precision)
        return ends(fit(model, make_optimizer(model, phase), phase, train, val))

    assert losses(trained(cached=True)) == pytest.approx(losses(trained(cached=False)), rel=1e-5)


def test_continuing_gives_the_losses_of_never_having_stopped(tiles: Path) -> None:
    whole = losses(run(tiles, phase="tune")[1])
    model, phase = network(), Phase("tune", SPEC)
    first = make_optimizer(model, phase)
    begun = fit(model, first, phase, *streams(read_sources([tiles], None)))
    before = list(islice((event for event in begun if isinstance(event, Epoch)), 2))

    again = network()
    again.load_state_dict(model.state_dict())
    second = make_optimizer(again, phase)
    second.load_state_dict(first.state_dict())
    after = ends(fit(again, second, phase, *streams(read_sources([tiles], None)), first_epoch=3))

    assert losses([*before, *after]) == whole


@pytest.mark.parametrize("spec", [SPEC, EXACT])
def test_exact_statistics_are_those_of_an_epochs_images_under_its_last_weights(tiles: Path, spec: FitSpec) -> None:
    model, phase = network(), Phase("tune", spec)
    train, val = streams(read_sources([tiles], None))

    for event in fit(model, make_optimizer(model, phase), phase, train, val):
        if isinstance(event, Epoch):
            images = [batch.inputs for batch in train.batches(event.epoch)]
            features = model.eval().features(torch.cat(images)).detach().double()
            moments = [features.mean(dim=0), features.var(dim=0)]
            found = [model.head.norm.running_mean, model.head.norm.running_var]
            close = [torch.allclose(a.double(), b, rtol=1e-4) for a, b in zip(found, moments, strict=True)]
            assert close == [spec is EXACT] * 2


def _worker(tiles: Path, folder: Path, phase: str) -> None:
    _, epochs = run(tiles, EXACT if phase == "exact" else SPEC, phase)
    torch.save((losses(epochs), epochs[-1].val_logits_NK.tolist()), folder / f"{dist.get_rank()}.pt")


@pytest.mark.slow
@pytest.mark.xdist_group("pipelines/test_train")  # whose processes are forked from one that has imported everything
@pytest.mark.parametrize("phase", ["head", "tune", "exact"])
@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_does_not_change_the_losses(
    tiles: Path, tmp_path: Path, workers: int, phase: str
) -> None:
    alone = run(tiles, EXACT if phase == "exact" else SPEC, phase)[1]

    call_in_processes(_worker, workers, tiles, tmp_path, phase)

    for rank in range(workers):
        measured, logits = torch.load(tmp_path / f"{rank}.pt")
        assert measured == pytest.approx(losses(alone), rel=1e-4)
        np.testing.assert_allclose(logits, alone[-1].val_logits_NK, rtol=1e-3, atol=1e-3)
