from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from histo.errors import UsageError
from histo.learn.fit.augment import CHROMA, LUMA, STAINS, augment
from histo.learn.fit.augment_spec import PRESETS, AugmentSpec, Settings
from histo.spec.base import Spec
from histo.spec.command_line import read_spec

MANY = 200
ALL_PRESETS = ["none", "original", "geometric", "stain"]


class Train(Spec):
    augment: AugmentSpec = AugmentSpec()


def only(**options: Any) -> AugmentSpec:
    """The one or two options, and nothing else."""
    return AugmentSpec(preset="none", **options)


def keys(count: int, epoch: int = 1) -> list[tuple[int, ...]]:
    return [(0, epoch, sample) for sample in range(count)]


def results(picture: torch.Tensor, spec: AugmentSpec, count: int = MANY) -> torch.Tensor:
    """Many augmented copies of one picture."""
    return augment(picture.expand(count, -1, -1, -1), spec, keys(count))


def flat(*colours: Sequence[int], size_px: int = 16) -> torch.Tensor:
    """A picture of equal vertical stripes, each of one colour."""
    columns = np.repeat(np.array(colours, np.uint8), size_px // len(colours), axis=0)
    return torch.from_numpy(np.broadcast_to(columns, (size_px, *columns.shape)).copy()).permute(2, 0, 1)


def stripes_of(images: torch.Tensor, count: int) -> np.ndarray:
    """The colours of the stripes, (B, stripes, 3)."""
    width = images.shape[3] // count
    return images[:, :, 0, width // 2 :: width].permute(0, 2, 1).double().numpy()


def as_grey(colours: np.ndarray) -> np.ndarray:
    return colours @ LUMA


@pytest.fixture
def picture() -> torch.Tensor:
    """A smooth picture without a symmetry that a flip or a turn could hide in."""
    row = torch.arange(32.0)
    ramp = row[None, :] * 3 + row[:, None] * 5
    return torch.stack([ramp, 255 - ramp, ramp.square() / 255]).to(torch.uint8)


@pytest.fixture
def tissue() -> torch.Tensor:
    """Four noisy pictures of odd size in the colours of H&E."""
    random = np.random.default_rng(7)
    pixels = random.normal([180, 110, 170], 35, (4, 45, 45, 3)).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


# Keys and batches


def test_the_key_determines_everything(tissue: torch.Tensor) -> None:
    spec = AugmentSpec(preset="stain")
    first = augment(tissue, spec, [(0, 1, 5)] * 4)
    others = [augment(tissue, spec, [key] * 4) for key in [(1, 1, 5), (0, 2, 5), (0, 1, 6)]]

    assert torch.equal(first, augment(tissue, spec, [(0, 1, 5)] * 4))
    assert not any(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("preset", ALL_PRESETS)
def test_one_by_one_equals_all_together(tissue: torch.Tensor, preset: str) -> None:
    spec = AugmentSpec.model_validate({"preset": preset, "blur_probability": 0.5 if preset == "stain" else 0})
    images = tissue.repeat(8, 1, 1, 1)

    together = augment(images, spec, keys(32))

    for sample, key in enumerate(keys(32)):
        assert torch.equal(augment(images[sample][None], spec, [key])[0], together[sample])


def test_the_order_of_the_batch_changes_nothing(tissue: torch.Tensor) -> None:
    spec = AugmentSpec(preset="stain")

    assert torch.equal(augment(tissue, spec, keys(4)).flip(0), augment(tissue.flip(0), spec, keys(4)[::-1]))


def test_a_sample_is_flipped_by_the_first_number_of_its_key(picture: torch.Tensor) -> None:
    changed = results(picture, only(horizontal_flip=True), count=20)

    for key, result in zip(keys(20), changed, strict=True):
        assert torch.equal(result, picture.flip(2)) == (np.random.default_rng(key).random() < 0.5)


def test_switching_an_option_on_leaves_the_draws_of_the_others(picture: torch.Tensor) -> None:
    flips = results(picture, only(horizontal_flip=True, vertical_flip=True))
    with_more = results(picture, only(horizontal_flip=True, vertical_flip=True, brightness=1e-6, stain_scale=1e-6))

    assert (flips.int() - with_more.int()).abs().max() <= 1


@pytest.mark.parametrize("preset", ALL_PRESETS)
def test_an_empty_batch_stays_empty(preset: str) -> None:
    empty = torch.empty((0, 3, 16, 16), dtype=torch.uint8)

    assert augment(empty, AugmentSpec.model_validate({"preset": preset}), []).shape == empty.shape


def test_the_images_that_go_in_stay_as_they_are(tissue: torch.Tensor) -> None:
    before = tissue.clone()

    augment(tissue, AugmentSpec(preset="stain", blur_probability=1, jpeg_probability=1), keys(4))

    assert torch.equal(tissue, before)


def test_a_batch_without_a_key_per_image_is_refused(tissue: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="3 keys for 4 images"):
        augment(tissue, AugmentSpec(), keys(3))


@pytest.mark.gpu
def test_the_gpu_gives_what_the_cpu_gives(tissue: torch.Tensor) -> None:
    spec = AugmentSpec(preset="stain", jpeg_probability=0)

    here, there = augment(tissue, spec, keys(4)), augment(tissue.cuda(), spec, keys(4))

    assert there.is_cuda
    assert (here.int() - there.cpu().int()).abs().max() <= 1


# Geometry


@pytest.mark.parametrize(("option", "axis"), [("horizontal_flip", 2), ("vertical_flip", 1)])
def test_a_flip_mirrors_about_half_of_the_images_and_is_exact(picture: torch.Tensor, option: str, axis: int) -> None:
    changed = results(picture, only(**{option: True}))
    mirrored = [torch.equal(result, picture.flip(axis)) for result in changed]
    kept = [torch.equal(result, picture) for result in changed]

    assert 0.4 * MANY < sum(mirrored) < 0.6 * MANY
    assert sum(mirrored) + sum(kept) == MANY


@pytest.mark.parametrize("size_px", [31, 32, 224])
def test_quarter_turns_are_exact_and_each_as_frequent(size_px: int) -> None:
    noise = torch.randint(0, 256, (3, size_px, size_px), generator=torch.manual_seed(0)).to(torch.uint8)
    changed = results(noise, only(quarter_turns=True), count=80)

    counts = [sum(torch.equal(result, noise.rot90(turn, (1, 2))) for result in changed) for turn in range(4)]

    assert sum(counts) == 80
    assert min(counts) > 10


def test_quarter_turns_refuse_images_that_are_not_square() -> None:
    with pytest.raises(ValueError, match="square images, not 48 x 32 px"):
        augment(torch.zeros((1, 3, 32, 48), dtype=torch.uint8), only(quarter_turns=True), keys(1))


def test_flips_of_images_that_are_not_square_are_exact() -> None:
    noise = torch.randint(0, 256, (3, 20, 33), generator=torch.manual_seed(0)).to(torch.uint8)
    forms = [noise, noise.flip(1), noise.flip(2), noise.flip(1, 2)]

    for result in results(noise, only(horizontal_flip=True, vertical_flip=True)):
        assert any(torch.equal(result, form) for form in forms)


def test_moves_leave_no_blank_corner() -> None:
    bright = torch.full((3, 32, 32), 200, dtype=torch.uint8)

    changed = results(bright, AugmentSpec(rotation_turns=0.5, zoom=1))

    assert changed.shape == (MANY, 3, 32, 32)
    assert (changed == 200).all()


def mean_gradients(images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Slope of the first channel's middle along x and y, in grey levels per px."""
    rows, columns = images.shape[2:]
    middle = images[:, 0, rows // 2 - 16 : rows // 2 + 16, columns // 2 - 16 : columns // 2 + 16].double()
    return middle.diff(dim=2).mean(dim=(1, 2)).numpy(), middle.diff(dim=1).mean(dim=(1, 2)).numpy()


@pytest.mark.parametrize("width", [64, 80])
def test_a_rotation_goes_as_far_as_asked_to_either_side_and_keeps_lengths(width: int) -> None:
    ramp = (torch.arange(float(width)) * 3).to(torch.uint8).expand(3, 64, -1)

    right, down = mean_gradients(results(ramp, only(rotation_turns=0.1)))
    turns = np.arctan2(down, right) / (2 * np.pi)

    assert -0.102 < turns.min() < -0.09
    assert 0.09 < turns.max() < 0.102
    assert np.hypot(right, down) == pytest.approx(np.full(MANY, 3), abs=0.1)


def test_a_zoom_goes_as_far_as_asked_both_ways_and_turns_nothing() -> None:
    ramp = (torch.arange(64.0) * 3).to(torch.uint8).expand(3, 64, -1)

    right, down = mean_gradients(results(ramp, only(zoom=0.2)))
    zoom = 3 / right

    assert 1 / 1.21 < zoom.min() < 1 / 1.18
    assert 1.18 < zoom.max() < 1.21
    assert 0.4 < (zoom > 1).mean() < 0.6
    assert np.abs(down).max() == 0


# Stain


def concentrations(colours: np.ndarray) -> np.ndarray:
    """Haematoxylin, eosin and residual of colours, in nats of absorbance."""
    found: np.ndarray = np.linalg.solve(STAINS.T, -np.log((colours + 1) / 256)[..., None])[..., 0]
    return found


def colour_of(haematoxylin: float, eosin: float) -> list[int]:
    light = 256 * np.exp(-np.array([haematoxylin, eosin, 0]) @ STAINS) - 1
    return [round(level) for level in light.tolist()]


def test_the_stains_are_those_of_ruifrok_and_johnston() -> None:
    assert STAINS[0] == pytest.approx([0.65, 0.70, 0.29], abs=0.002)
    assert STAINS[1] == pytest.approx([0.07, 0.99, 0.11], abs=0.002)
    assert STAINS[2] @ STAINS[:2].T == pytest.approx([0, 0], abs=1e-12)


def test_each_stain_is_scaled_by_itself_within_bounds() -> None:
    patches = flat(colour_of(1, 0), colour_of(0, 1))
    before = concentrations(np.array([colour_of(1, 0), colour_of(0, 1)]))

    after = concentrations(stripes_of(results(patches, only(stain_scale=0.2)), 2))
    haematoxylin, eosin = after[:, 0, 0] / before[0, 0], after[:, 1, 1] / before[1, 1]

    for scale in (haematoxylin, eosin):
        assert 0.78 < scale.min() < 0.83
        assert 1.17 < scale.max() < 1.22
    assert abs(np.corrcoef(haematoxylin, eosin)[0, 1]) < 0.2
    assert np.abs(after[:, 0, 1]).max() < 0.02
    assert np.abs(after[:, 1, 0]).max() < 0.02


def test_each_stain_is_shifted_by_itself_by_the_same_amount_everywhere() -> None:
    colours = np.array([colour_of(1, 0.5), colour_of(0.5, 1)])

    moved = concentrations(stripes_of(results(flat(*colours.tolist()), only(stain_shift=0.1)), 2))
    moved -= concentrations(colours)

    assert np.abs(moved).max() < 0.1 + 0.02
    for stain in range(3):
        assert moved[:, 0, stain].min() < -0.08
        assert moved[:, 0, stain].max() > 0.08
    assert np.abs(moved[:, 0] - moved[:, 1]).max() < 0.03
    assert abs(np.corrcoef(moved[:, 0, 0], moved[:, 0, 1])[0, 1]) < 0.2


def test_glass_stays_nearly_white() -> None:
    spec = only(stain_scale=PRESETS["stain"].stain_scale, stain_shift=PRESETS["stain"].stain_shift)

    glass = results(flat([255, 255, 255]), spec)

    assert glass.min() >= 240
    assert torch.equal(results(flat([255, 255, 255]), only(stain_scale=0.5)), flat([255] * 3).expand(MANY, -1, -1, -1))


def test_a_stain_that_is_hardly_changed_leaves_every_level_as_it_is() -> None:
    levels = torch.arange(256).to(torch.uint8).expand(3, 4, -1)
    colours = torch.stack([levels[0], levels[1].flip(1), levels[2].roll(100, dims=1)])

    assert torch.equal(results(colours, only(stain_scale=1e-9), count=1)[0], colours)


@pytest.mark.realdata
def test_real_tiles_go_to_stains_and_back(shared: Path) -> None:
    paths = [
        *sorted((shared / "tiles/nct-native").rglob("*.png")),
        *sorted((shared / "tiles/nct-crops").rglob("*.png")),
    ]

    for path in paths:
        with Image.open(path) as image:
            tile = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        back = results(tile, only(stain_scale=1e-9), count=1)[0]
        assert (back.int() - tile.int()).abs().max() <= 1
    assert len(paths) > 20


# Colour


def test_brightness_scales_every_level_alike_within_bounds() -> None:
    colours = stripes_of(results(flat([100, 100, 100], [180, 60, 150]), only(brightness=0.2)), 2)
    scale = colours[:, 0, 0] / 100

    assert 0.8 <= scale.min() < 0.83
    assert 1.17 < scale.max() <= 1.2
    assert colours[:, 1] == pytest.approx(scale[:, None] * np.array([180, 60, 150]), abs=1.5)


def test_contrast_scales_the_distance_from_the_mean_grey_within_bounds() -> None:
    colours = stripes_of(results(flat([80, 80, 80], [160, 160, 160]), only(contrast=0.2)), 2)
    distance = (colours[:, 1, 0] - colours[:, 0, 0]) / 80

    assert 0.78 < distance.min() < 0.83
    assert 1.17 < distance.max() < 1.22
    assert colours.mean(axis=(1, 2)) == pytest.approx(np.full(MANY, 120), abs=0.6)


def chroma_of(colours: np.ndarray) -> np.ndarray:
    """Chroma as a complex number: its length is the saturation, its angle the hue."""
    u_v: np.ndarray = colours @ CHROMA[1:].T
    return u_v[..., 0] + 1j * u_v[..., 1]


def test_saturation_scales_the_chroma_within_bounds_and_keeps_grey_level_and_hue() -> None:
    before = np.array([170, 110, 150])
    after = stripes_of(results(flat(before.tolist()), only(saturation=0.3)), 1)[:, 0]

    ratio = chroma_of(after) / chroma_of(before)

    assert 0.67 < np.abs(ratio).min() < 0.75
    assert 1.25 < np.abs(ratio).max() < 1.33
    assert np.abs(np.angle(ratio)).max() < 0.05
    assert as_grey(after) == pytest.approx(np.full(MANY, as_grey(before)), abs=0.6)


def test_saturation_is_that_of_torchvision() -> None:
    colours = [[170, 110, 150], [60, 90, 200]]
    after = results(flat(*colours), only(saturation=0.3), count=10)

    for result in stripes_of(after, 2):
        factor = float((chroma_of(result[1]) / chroma_of(np.array(colours[1]))).real)
        expected = transforms.adjust_saturation(flat(*colours).float() / 255, factor) * 255
        assert result == pytest.approx(stripes_of(expected[None], 2)[0], abs=1.5)


def test_hue_rotates_the_chroma_within_bounds_and_keeps_grey_level_and_saturation() -> None:
    before = np.array([170, 110, 150])
    after = stripes_of(results(flat(before.tolist()), only(hue_turns=0.1)), 1)[:, 0]

    ratio = chroma_of(after) / chroma_of(before)
    turns = np.angle(ratio) / (2 * np.pi)

    assert -0.105 < turns.min() < -0.09
    assert 0.09 < turns.max() < 0.105
    assert np.abs(ratio) == pytest.approx(np.ones(MANY), abs=0.04)
    assert as_grey(after) == pytest.approx(np.full(MANY, as_grey(before)), abs=0.6)


def test_grey_stays_grey_under_saturation_and_hue() -> None:
    greys = flat([0, 0, 0], [90, 90, 90], [200, 200, 200], [255, 255, 255])

    changed = results(greys, only(saturation=1, hue_turns=0.5))

    assert torch.equal(changed, greys.expand_as(changed))


# Blur and JPEG


def high_frequencies(images: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of neighbouring pixels, per image."""
    return images.double().diff(dim=3).square().mean(dim=(1, 2, 3))


def test_blur_lowers_high_frequencies_of_the_chosen_share_and_keeps_the_mean(tissue: torch.Tensor) -> None:
    sharp = tissue[0]
    blurred = results(sharp, only(blur_probability=0.5, blur_sigma_px=2))
    energy = high_frequencies(blurred) / high_frequencies(sharp[None])
    chosen = torch.tensor([not torch.equal(result, sharp) for result in blurred])

    assert 0.35 * MANY < chosen.sum() < 0.6 * MANY
    assert energy[chosen].max() < 1
    assert energy[chosen].median() < 0.3
    assert blurred.double().mean(dim=(1, 2, 3)).numpy() == pytest.approx(float(sharp.double().mean()), abs=1.5)


def test_blur_is_never_stronger_than_asked(tissue: torch.Tensor) -> None:
    strongest = transforms.gaussian_blur(tissue[:1].float(), [13, 13], [2.0, 2.0])

    energy = high_frequencies(results(tissue[0], only(blur_probability=1, blur_sigma_px=2)))

    assert energy.min() > 0.95 * high_frequencies(strongest)
    assert energy.min() < 1.2 * high_frequencies(strongest)


def pillow_jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    file = BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


def test_jpeg_compresses_the_chosen_share_with_qualities_of_the_range(tissue: torch.Tensor) -> None:
    original = tissue[0]
    by_quality = {quality: pillow_jpeg(original, quality) for quality in range(85, 96)}

    changed = results(original, only(jpeg_probability=0.5, jpeg_quality=85))
    qualities = [[q for q, image in by_quality.items() if torch.equal(image, result)] for result in changed]
    kept = [torch.equal(result, original) for result in changed]

    assert 0.4 * MANY < sum(kept) < 0.6 * MANY
    assert all(bool(found) != unchanged for found, unchanged in zip(qualities, kept, strict=True))
    assert {quality for found in qualities for quality in found} == set(range(85, 96))


def test_jpeg_leaves_blocks_of_8_px(tissue: torch.Tensor) -> None:
    ramp = (torch.arange(64.0) * 2.3 + torch.arange(64.0)[:, None] * 0.7).to(torch.uint8).expand(3, -1, -1)

    changed = results(ramp, only(jpeg_probability=1, jpeg_quality=1), count=40).double()
    steps = (changed.diff(dim=3) - ramp.double().diff(dim=2)).abs().mean(dim=(0, 1, 2))
    on_edges = steps[7::8].mean()

    assert on_edges > 1.5 * steps[torch.arange(63) % 8 != 7].mean()


# Settings


def test_presets_are_what_the_documentation_says() -> None:
    geometric = {
        "horizontal_flip": True,
        "vertical_flip": True,
        "quarter_turns": True,
        "rotation_turns": 0.125,
        "zoom": 0.1,
    }
    stain = {
        "stain_scale": 0.05,
        "stain_shift": 0.03,
        "brightness": 0.1,
        "contrast": 0.1,
        "saturation": 0.1,
        "hue_turns": 0.01,
        "blur_probability": 0.25,
        "blur_sigma_px": 1.0,
        "jpeg_probability": 0.5,
        "jpeg_quality": 40,
    }

    assert AugmentSpec(preset="none").settings() == Settings()
    assert AugmentSpec(preset="original").settings() == Settings(horizontal_flip=True, rotation_turns=0.2)
    assert AugmentSpec(preset="geometric").settings() == Settings(**geometric)
    assert AugmentSpec(preset="stain").settings() == Settings(**geometric, **stain)
    assert AugmentSpec() == AugmentSpec(preset="geometric")


def test_an_option_overrides_its_preset_and_nothing_else() -> None:
    argv = ["--augment.preset", "stain", "--augment.jpeg-probability", "0", "--no-augment.vertical-flip"]
    expected = {**vars(PRESETS["stain"]), "jpeg_probability": 0, "vertical_flip": False}

    assert vars(read_spec(Train, argv, "histo").augment.settings()) == expected


def test_an_unknown_preset_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(UsageError, match=r"preset.*'stains'.*'none', 'original', 'geometric', 'stain' or 'volume'"):
        read_spec(Train, ["--augment.preset", "stains"], "histo")


@pytest.mark.parametrize("option", ["rotation-turns 0.6", "zoom -0.1", "jpeg-quality 96", "blur-sigma-px 0"])
def test_an_amount_out_of_range_is_refused(option: str) -> None:
    name, value = option.split()

    with pytest.raises(UsageError, match=f"--augment.{name}: '?{value}"):
        read_spec(Train, [f"--augment.{name}={value}"], "histo")


def test_the_preset_none_changes_nothing_and_says_so(tissue: torch.Tensor) -> None:
    assert AugmentSpec(preset="none").settings().changes_nothing
    assert torch.equal(augment(tissue, AugmentSpec(preset="none"), keys(4)), tissue)


@pytest.mark.parametrize(
    "option",
    [
        {"horizontal_flip": True},
        {"vertical_flip": True},
        {"quarter_turns": True},
        {"rotation_turns": 0.1},
        {"zoom": 0.1},
        {"stain_scale": 0.1},
        {"stain_shift": 0.1},
        {"brightness": 0.1},
        {"contrast": 0.1},
        {"saturation": 0.1},
        {"hue_turns": 0.1},
        {"blur_probability": 0.5},
        {"jpeg_probability": 0.5},
    ],
    ids=lambda option: next(iter(option)),
)
def test_each_option_alone_changes_something_and_says_so(tissue: torch.Tensor, option: dict[str, Any]) -> None:
    assert not only(**option).settings().changes_nothing
    assert not torch.equal(results(tissue[0], only(**option), count=8), tissue[0].expand(8, -1, -1, -1))
