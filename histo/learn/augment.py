"""Random changes of a training image, a function of its own random generator alone.

The generator is keyed by (seed, epoch, sample), so that an image is changed in the same way whichever worker has it.
"""

import math

import numpy as np
import torch
from pydantic import Field
from torch.nn.functional import pad
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from histo.spec import Spec


class AugmentSpec(Spec):
    """Random changes of training images; validation images are never changed."""

    horizontal_flip: bool = True
    """Mirror left and right, half of the time."""
    vertical_flip: bool = True
    """Mirror top and bottom, half of the time."""
    rotation_turns: float = Field(0.2, ge=0, le=0.5)
    """Greatest rotation to either side (turns; 0.2 is 72 degrees). What turns in from outside is mirrored."""


def sample_generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """Return the random generator of one sample in one epoch."""
    return np.random.default_rng((seed, epoch, sample))


def augment(image_CHW: torch.Tensor, spec: AugmentSpec, random: np.random.Generator) -> torch.Tensor:
    """Change one uint8 image; its size stays."""
    mirror_x, mirror_y, turn = random.random(3)
    if spec.horizontal_flip and mirror_x < 0.5:
        image_CHW = transforms.horizontal_flip(image_CHW)
    if spec.vertical_flip and mirror_y < 0.5:
        image_CHW = transforms.vertical_flip(image_CHW)
    if spec.rotation_turns:
        image_CHW = _rotate(image_CHW, degrees=360 * spec.rotation_turns * (2 * turn - 1))
    return image_CHW


def _rotate(image_CHW: torch.Tensor, degrees: float) -> torch.Tensor:
    """Rotate about the centre, mirroring the image beyond its border so that no blank corner appears."""
    size = [*image_CHW.shape[-2:]]
    margin = [math.ceil(edge * (math.sqrt(2) - 1) / 2) + 1 for edge in size]
    wide = pad(image_CHW.float()[None], (margin[1], margin[1], margin[0], margin[0]), mode="reflect")[0]
    turned = transforms.rotate(wide, degrees, interpolation=InterpolationMode.BILINEAR)
    result: torch.Tensor = transforms.center_crop(turned, size).round().to(image_CHW.dtype)
    return result
