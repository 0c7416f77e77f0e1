"""Change a batch of training tiles or volumes at random, on its device.

Every sample has a key of integers, in training (seed, epoch, sample), and all its random numbers come from that key:
neither the workers, nor the batch that a sample is in, nor its neighbours there change what becomes of it. A sample
draws the same numbers in the same order whatever is on, so that switching one option on leaves the others' draws alone.

A volume changes as one: all its slices turn alike. Stain, colour and JPEG are for tiles.

Axes: B sample, C channel (of tiles red, green and blue, of volumes every slice of every series), H row, W column.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import grid_sample
from torchvision.transforms.v2.functional import gaussian_blur

from histo.learn.fit.augment_spec import BEST_JPEG_QUALITY, AugmentSpec, Settings

STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.0, 0.0, 0.0]])
"""Absorption of red, green and blue by haematoxylin, eosin, and a residual perpendicular to both; rows of length 1.

Ruifrok and Johnston, Analytical and Quantitative Cytology and Histology 23 (2001) 291-299.
"""
STAINS[2] = np.cross(STAINS[0], STAINS[1])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)

LUMA = np.array([0.299, 0.587, 0.114])
"""Share of red, green and blue in the grey level of a colour (ITU-R BT.601)."""
CHROMA = np.stack([LUMA, 0.492 * (np.eye(3)[2] - LUMA), 0.877 * (np.eye(3)[0] - LUMA)])
"""Colour to grey level and two chroma axes, U and V (ITU-R BT.601); grey has no chroma."""

CPU_SHARE = 8
"""Tiles that a CPU changes at once: memory for the steps of more comes fresh from the system, which takes longer."""
DRAWS = 21
"""Random numbers of a sample. New ones are added at the end, so that the old ones stay."""


@dataclass(frozen=True)
class _Draws:
    """Random numbers in [0, 1) by purpose, one per sample, in the order in which they are drawn."""

    horizontal_flip: np.ndarray
    vertical_flip: np.ndarray
    quarter: np.ndarray
    rotation: np.ndarray
    zoom: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray
    blur: np.ndarray
    blur_sigma: np.ndarray
    jpeg: np.ndarray
    jpeg_quality: np.ndarray
    stain_scale: np.ndarray
    stain_shift: np.ndarray
    noise: np.ndarray
    noise_seed: np.ndarray


def _draw(keys: Sequence[tuple[int, ...]]) -> _Draws:
    """Draw each sample's numbers from its key; those of the stains are (B, 3), a column per stain."""
    numbers = np.array([np.random.default_rng(key).random(DRAWS) for key in keys]).reshape(-1, DRAWS)
    purposes = [*numbers.T[:13], numbers[:, 13:16], numbers[:, 16:19], *numbers.T[19:]]
    return _Draws(*purposes)


def augment(images: torch.Tensor, spec: AugmentSpec, keys: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """Change every tile, or volume, of a batch in its own way.

    Flips, turns and zoom come first, in one bilinear resampling; then stain, colour, blur, noise and JPEG. In between,
    values are real numbers; they are rounded and cut to 0..255 once, before JPEG.

    Args:
        images: uint8, `(B, C, H, W)` or `(B, S, D, H, W)`, on any device; may be empty.
        spec: What is changed, and how much.
        keys: One per sample, all that its random numbers depend on.

    Returns:
        uint8 of the same shape, on the same device; the batch itself, if nothing is to be changed.

    Raises:
        ValueError: If there is not one key per sample, if quarter turns are asked of images that are not square, or
            other colours of images that have none.
    """
    if len(keys) != len(images):
        raise ValueError(f"{len(keys)} keys for {len(images)} images")
    settings = spec.settings()
    if settings.changes_nothing or not len(keys):
        return images
    images_BCHW = images.flatten(1, -3)
    if settings.for_colours and images_BCHW.shape[1] != 3:
        raise ValueError(f"{settings.for_colours[0]} needs red, green and blue, not {images_BCHW.shape[1]} channels")
    share = max(1, CPU_SHARE * 3 // images_BCHW.shape[1]) if images.device.type == "cpu" else len(keys)
    shares = [slice(start, start + share) for start in range(0, len(keys), share)]
    changed = [_augment(images_BCHW[part], settings, _draw(keys[part])) for part in shares]
    return torch.cat(changed).reshape(images.shape)


def _augment(images_BCHW: torch.Tensor, settings: Settings, draws: _Draws) -> torch.Tensor:
    """Change every tile of a batch by its own draws, under whatever precision the caller's network runs."""
    with torch.autocast(images_BCHW.device.type, enabled=False):
        values_BCHW = images_BCHW.float()
        if settings.moves:
            values_BCHW = _move(values_BCHW, settings, draws)
        if settings.stains:
            values_BCHW = _stain(values_BCHW, settings, draws)
        if settings.colours:
            values_BCHW = _colour(values_BCHW, settings, draws, _mean_grey(images_BCHW))
        _blur(values_BCHW, settings, draws)
        _add_noise(values_BCHW, settings, draws)
        result_BCHW = values_BCHW.round_().clamp_(0, 255).to(torch.uint8)
    _compress(result_BCHW, settings, draws)
    return result_BCHW


def _either_side(draws: np.ndarray, greatest: float) -> np.ndarray:
    """Spread draws from -greatest to greatest."""
    return greatest * (2 * draws - 1)


def _move(values_BCHW: torch.Tensor, settings: Settings, draws: _Draws) -> torch.Tensor:
    """Flip, turn and zoom about the centre, mirroring the image beyond its border.

    Raises:
        ValueError: If quarter turns are asked of images that are not square.
    """
    height, width = values_BCHW.shape[-2:]
    if settings.quarter_turns and height != width:
        raise ValueError(f"quarter turns need square images, not {width} x {height} px")
    matrix = _source_matrix(settings, draws) * (2 / np.array([width, height]))[:, None]
    of_x, of_y = _on_device(matrix, values_BCHW)[:, None, None].unbind(dim=-1)
    x = torch.arange(width, device=values_BCHW.device) - (width - 1) / 2
    y = torch.arange(height, device=values_BCHW.device) - (height - 1) / 2
    places = of_x * x[:, None] + of_y * y[:, None, None]
    return grid_sample(values_BCHW, places, mode="bilinear", padding_mode="reflection", align_corners=False)


def _source_matrix(settings: Settings, draws: _Draws) -> np.ndarray:
    """Return what takes a place (x, y) of the result to its source, in px from the centre; (B, 2, 2)."""
    turns = _either_side(draws.rotation, settings.rotation_turns)
    turns += settings.quarter_turns * np.floor(4 * draws.quarter) / 4
    cosine, sine = np.cos(2 * math.pi * turns), np.sin(2 * math.pi * turns)
    shrink = (1 + settings.zoom) ** _either_side(draws.zoom, 1)
    mirror_x = np.where(settings.horizontal_flip & (draws.horizontal_flip < 0.5), -shrink, shrink)
    mirror_y = np.where(settings.vertical_flip & (draws.vertical_flip < 0.5), -shrink, shrink)
    rows = [[mirror_x * cosine, -mirror_x * sine], [mirror_y * sine, mirror_y * cosine]]
    return np.moveaxis(np.array(rows), 2, 0)


def _stain(values_BCHW: torch.Tensor, settings: Settings, draws: _Draws) -> torch.Tensor:
    """Scale and shift the concentration of each stain, as Tellez et al. do (doi 10.1109/TMI.2018.2820199).

    Light of level v has the absorbances a = -ln((v + 1) / 256) = c S of the concentrations c and the `STAINS` S. Of
    scaled and shifted ones, c A + b, they are a (S^-1 A S) + b S: one matrix and one offset per sample.
    """
    scale = 1 + _either_side(draws.stain_scale, settings.stain_scale)
    shift = _either_side(draws.stain_shift, settings.stain_shift)
    matrix = np.linalg.inv(STAINS) @ (scale[:, :, None] * STAINS)
    log_BCHW = values_BCHW.add(1).div_(256).log_()
    return _mix(log_BCHW, matrix.swapaxes(1, 2), _on_device(-shift @ STAINS, values_BCHW)).exp_().mul_(256).sub_(1)


def _colour(values_BCHW: torch.Tensor, settings: Settings, draws: _Draws, mean_grey_B: torch.Tensor) -> torch.Tensor:
    """Change brightness, contrast, saturation and hue in one linear step; grey stays grey.

    A colour v becomes k b T v + (1 - k) b m, with brightness b, contrast k, the tile's mean grey level m, and
    T = U^-1 diag(1, s R) U, which scales the chroma of U = `CHROMA` by the saturation s and rotates it by the hue.
    """
    brightness = 1 + _either_side(draws.brightness, settings.brightness)
    contrast = 1 + _either_side(draws.contrast, settings.contrast)
    saturation = 1 + _either_side(draws.saturation, settings.saturation)
    hue = 2 * math.pi * _either_side(draws.hue, settings.hue_turns)
    chroma = np.zeros((len(hue), 3, 3))
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * np.cos(hue)
    chroma[:, 2, 1] = saturation * np.sin(hue)
    chroma[:, 1, 2] = -chroma[:, 2, 1]
    matrix = (contrast * brightness)[:, None, None] * (np.linalg.inv(CHROMA) @ chroma @ CHROMA)
    offset_B = _on_device((1 - contrast) * brightness, values_BCHW) * mean_grey_B
    return _mix(values_BCHW, matrix, offset_B[:, None].expand(-1, 3))


def _mean_grey(images_BCHW: torch.Tensor) -> torch.Tensor:
    """Return the mean grey level of each uint8 image (B,); sums of whole numbers are exact in whatever order."""
    sums_BC = images_BCHW.float().sum(dim=3).double().sum(dim=2)
    mean_B = (sums_BC * _on_device(LUMA, sums_BC)).sum(dim=1) / (images_BCHW.shape[2] * images_BCHW.shape[3])
    return mean_B.float()


def _mix(values_BCHW: torch.Tensor, matrix: np.ndarray, offset_BC: torch.Tensor) -> torch.Tensor:
    """Return matrix @ colour + offset of each pixel, with one (3, 3) matrix and one offset per sample.

    Written out, since a matrix product may round in another way for another batch size, and on a GPU to fewer digits.
    """
    weight = _on_device(matrix, values_BCHW)[..., None, None]
    red, green, blue = (values_BCHW[:, channel : channel + 1] for channel in range(3))
    mixed = torch.addcmul(offset_BC[..., None, None], weight[:, :, 0], red)
    return mixed.addcmul_(weight[:, :, 1], green).addcmul_(weight[:, :, 2], blue)


def _on_device(numbers: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(numbers).to(like.device, like.dtype)


def _blur(values_BCHW: torch.Tensor, settings: Settings, draws: _Draws) -> None:
    """Blur the chosen samples in place."""
    sigmas = settings.blur_sigma_px * (1 - draws.blur_sigma)
    for sample in np.flatnonzero(draws.blur < settings.blur_probability):
        sigma = float(sigmas[sample])
        size = 2 * math.ceil(3 * sigma) + 1
        values_BCHW[sample] = gaussian_blur(values_BCHW[sample], [size, size], [sigma, sigma])


def _add_noise(values_BCHW: torch.Tensor, settings: Settings, draws: _Draws) -> None:
    """Add normal noise of each sample's own strength, in place."""
    if settings.noise == 0:
        return
    for values_CHW, strength, seed in zip(values_BCHW, settings.noise * draws.noise, draws.noise_seed, strict=True):
        generator = torch.Generator(values_CHW.device).manual_seed(int(seed * 2**53))
        drawn = torch.randn(values_CHW.shape, generator=generator, device=values_CHW.device)
        values_CHW.add_(drawn, alpha=255 * float(strength))


def _compress(images_BCHW: torch.Tensor, settings: Settings, draws: _Draws) -> None:
    """Compress the chosen samples as JPEG and read them back, in place; the codec runs on the CPU."""
    span = BEST_JPEG_QUALITY + 1 - settings.jpeg_quality
    qualities = settings.jpeg_quality + np.floor(span * draws.jpeg_quality).astype(int)
    for sample in np.flatnonzero(draws.jpeg < settings.jpeg_probability):
        images_BCHW[sample] = _through_jpeg(images_BCHW[sample].cpu(), int(qualities[sample]))


def _through_jpeg(image_CHW: torch.Tensor, quality: int) -> torch.Tensor:
    """Encode and decode with Pillow, since torchvision (0.29) has deprecated its own codec."""
    file = BytesIO()
    Image.fromarray(image_CHW.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    with Image.open(file, formats=["JPEG"]) as decoded:
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1)
