from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from histo.learn.augment import AugmentSpec
from histo.learn.loop import Epoch, FitSpec, evaluate_loss, fit, make_optimizer
from histo.learn.model import Network, Normalisation
from histo.learn.source import Source, read_sources
from histo.learn.stream import Stream


class Patches(nn.Module):
    """A backbone that needs no weights: means of patches, mixed by a fixed matrix, with a batch normalisation."""

    num_features = 16

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 16, kernel_size=8, stride=8)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.mix(images)).relu().mean(dim=(2, 3))


SPEC = FitSpec(epochs=4, batch_size=8, learning_rate=0.02)


def network(dropout: float = 0.2) -> Network:
    torch.manual_seed(0)
    return Network(Patches(), Normalisation((127.0,) * 3, (128.0,) * 3), classes=3, dropout=dropout)


def streams(source: Source) -> tuple[Stream, Stream]:
    train = tuple(i for i in range(36) if i % 4)
    val = tuple(range(0, 36, 4))
    return Stream(source, train, 32, 8, 0, AugmentSpec()), Stream(source, val, 32, 8, 0, None)


def run(tiles: Path, dropout: float = 0.2, epochs: int = SPEC.epochs) -> tuple[Network, list[Epoch]]:
    model = network(dropout)
    return model, list(fit(model, make_optimizer(model, SPEC), *streams(read_sources([tiles])), epochs))


def losses(epochs: list[Epoch]) -> list[float]:
    return [value for epoch in epochs for value in (epoch.train_loss, epoch.val_loss, epoch.train_accuracy)]


def test_the_loss_falls_on_separable_data(tiles: Path) -> None:
    _, epochs = run(tiles)

    assert epochs[-1].train_loss < 0.5 * epochs[0].train_loss
    assert epochs[-1].val_accuracy > 0.85


def test_two_runs_of_one_seed_are_equal(tiles: Path) -> None:
    assert losses(run(tiles)[1]) == losses(run(tiles)[1])


def test_a_frozen_backbone_stays_as_it_was(tiles: Path) -> None:
    before = network().backbone.state_dict()

    after = run(tiles)[0].backbone.state_dict()

    assert all(torch.equal(before[name], after[name]) for name in before)


def test_stopping_is_a_break_and_every_step_is_recorded(tiles: Path) -> None:
    model = network()

    for epoch in fit(model, make_optimizer(model, SPEC), *streams(read_sources([tiles])), epochs=99):
        last = epoch
        if epoch.epoch == 2:
            break

    assert [step.step for step in last.steps] == [5, 6, 7, 8]
    assert all(step.epoch == 2 for step in last.steps)


@torch.no_grad()
def test_the_validation_loss_is_a_mean_over_cases_not_over_batches(tiles: Path) -> None:
    model = network()
    _, val = streams(read_sources([tiles]))
    everything = torch.cat([batch.images_BCHW for batch in val.batches(0)])
    labels = torch.cat([batch.labels_B for batch in val.batches(0)])

    loss, accuracy = evaluate_loss(model, val)

    logits = model.eval()(everything)
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))


def _worker(rank: int, workers: int, tiles: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=workers)
    _, epochs = run(tiles, dropout=0)
    if rank == 0:
        torch.save(losses(epochs), folder / "losses.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_does_not_change_the_losses(tiles: Path, tmp_path: Path, workers: int) -> None:
    alone = losses(run(tiles, dropout=0)[1])

    multiprocessing.spawn(_worker, (workers, tiles, tmp_path), nprocs=workers)

    assert torch.load(tmp_path / "losses.pt") == pytest.approx(alone, rel=1e-4)
