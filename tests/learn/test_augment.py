import numpy as np
import pytest
import torch

from histo.learn.augment import AugmentSpec, augment, sample_generator

NOTHING = AugmentSpec(horizontal_flip=False, vertical_flip=False, rotation_turns=0)


@pytest.fixture
def picture() -> torch.Tensor:
    """A corner-to-corner ramp: no symmetry that a flip or a turn could hide in."""
    row = torch.arange(32.0)
    return (row[None, :] * 3 + row[:, None] * 5).to(torch.uint8).expand(3, -1, -1).clone()


def results(picture: torch.Tensor, spec: AugmentSpec) -> list[torch.Tensor]:
    return [augment(picture, spec, sample_generator(0, 1, sample)) for sample in range(40)]


def test_nothing_asked_for_changes_nothing(picture: torch.Tensor) -> None:
    assert all(torch.equal(result, picture) for result in results(picture, NOTHING))


@pytest.mark.parametrize(("option", "axis"), [("horizontal_flip", 2), ("vertical_flip", 1)])
def test_a_flip_mirrors_about_half_of_the_images(picture: torch.Tensor, option: str, axis: int) -> None:
    mirrored = [torch.equal(r, picture.flip(axis)) for r in results(picture, NOTHING.model_copy(update={option: True}))]
    kept = [torch.equal(r, picture) for r in results(picture, NOTHING.model_copy(update={option: True}))]

    assert 10 < sum(mirrored) < 30
    assert sum(mirrored) + sum(kept) == 40


def test_a_rotation_keeps_the_size_and_leaves_no_blank_corner(picture: torch.Tensor) -> None:
    bright = torch.full_like(picture, 200)

    for result in results(bright, NOTHING.model_copy(update={"rotation_turns": 0.5})):
        assert result.shape == bright.shape
        assert result.min() == 200


def test_a_rotation_turns_by_no_more_than_asked(picture: torch.Tensor) -> None:
    def direction(image: torch.Tensor) -> float:
        middle = image[0, 8:24, 8:24].float()
        down, right = (float(middle.diff(dim=axis).median()) for axis in (0, 1))
        return float(np.degrees(np.arctan2(down, right)))

    ramp = (torch.arange(32.0)[None, :] * 4).to(torch.uint8).expand(3, 32, -1).clone()
    angles = [direction(r) for r in results(ramp, NOTHING.model_copy(update={"rotation_turns": 0.1}))]

    assert max(np.abs(angles)) <= 36 + 6
    assert max(np.abs(angles)) > 20


def test_the_change_depends_on_seed_epoch_and_sample_alone(picture: torch.Tensor) -> None:
    keys = [(0, 1, 5), (0, 1, 5), (1, 1, 5), (0, 2, 5), (0, 1, 6)]

    first, again, *others = (augment(picture, AugmentSpec(), sample_generator(*key)) for key in keys)

    assert torch.equal(first, again)
    assert not any(torch.equal(first, other) for other in others)
