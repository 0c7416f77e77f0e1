"""Stained tissue in transmitted light is told from all else, however dark, pale or framed it is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from helpers.fake_slides import array_slide, write_tiff

from histo.errors import Cause, SlideError
from histo.resample import Pixels
from histo.slides.brightfield import is_brightfield
from histo.slides.plan import plan_slide
from histo.slides.slide import open_slide
from histo.slides.spec import TilingSpec, TissueSpec
from histo.slides.tissue import find_tissue, read_thumbnail

Image = npt.NDArray[np.float64]
HAEMATOXYLIN, EOSIN, DAB = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)
"""Absorbance of red, green and blue (Ruifrok and Johnston 2001)."""


def amounts(seed: int = 0) -> tuple[Image, Image]:
    """Where there is tissue, `(H, W, 1)`, 0 to 1, and where its nuclei are, as much again."""
    y, x = np.mgrid[:120, :160]
    rng = np.random.default_rng(seed)
    tissue = np.hypot(y - 60, x - 70) < 45
    nuclei = tissue & (rng.random(tissue.shape) < 0.3)
    return (tissue * rng.uniform(0.5, 1, tissue.shape))[..., None], (nuclei * rng.uniform(0.5, 1, nuclei.shape))[
        ..., None
    ]


def through(*dyes: tuple[Image, tuple[float, float, float], float]) -> Image:
    """Light that came through dyes: where, absorbance, how much of it."""
    absorbance = sum(amount * np.array(dye) * dose for amount, dye, dose in dyes)
    return 245 * 10 ** -np.asarray(absorbance, np.float64)


def h_and_e(dose: float = 1.0) -> Image:
    tissue, nuclei = amounts()
    return through((tissue, EOSIN, 0.4 * dose), (nuclei, HAEMATOXYLIN, 0.8 * dose))


def immunostain(dose: float = 1.0) -> Image:
    tissue, nuclei = amounts()
    return through((tissue, HAEMATOXYLIN, 0.2), (nuclei, DAB, 1.2 * dose))


def framed(image: Image, edge: int) -> Image:
    return np.pad(image, ((edge, edge), (edge, edge), (0, 0)))


def pen(image: Image) -> Image:
    image = image.copy()
    image[:40] = (30, 60, 160)
    return image


def grey(image: Image) -> Image:
    return np.repeat(image.mean(axis=2, keepdims=True).round(), 3, axis=2)


def glow(colour: tuple[float, float, float], background: float = 3) -> Image:
    tissue, nuclei = amounts()
    return background + (0.3 * tissue + 0.7 * nuclei) * np.array(colour)


def seen(image: Image) -> bool:
    return is_brightfield("a.tif", np.clip(image, 0, 255).astype(np.uint8).reshape(-1, 3), any_image=False)


@pytest.mark.parametrize(
    "image",
    [
        h_and_e(),
        h_and_e(2.5),
        h_and_e(0.08),
        0.3 * h_and_e(),
        255 * (h_and_e() / 255) ** 2,
        h_and_e()[40:80, 50:90],
        2.5 * 10 + 0.3 * h_and_e(2.5)[40:80, 50:90],
        immunostain(),
        immunostain(2.5),
        0.4 * immunostain(),
        framed(h_and_e(), 150),
        framed(0.5 * h_and_e(2), 100),
        framed(immunostain(2), 150),
        pen(h_and_e()),
        np.full((50, 50, 3), 255.0),
        np.full((50, 50, 3), (240.0, 236.0, 228.0)),
        np.random.default_rng(0).normal(230, 3, (50, 50, 1)).repeat(3, 2),
        framed(np.full((50, 50, 3), 240.0), 60),
        pen(np.full((90, 90, 3), 240.0)),
    ],
    ids=[
        "h&e",
        "dark stain",
        "pale stain",
        "dark scan",
        "steep scan",
        "nothing but tissue",
        "dark tissue alone",
        "ihc",
        "dark ihc",
        "dark scan of ihc",
        "black frame",
        "dark in a frame",
        "ihc in a frame",
        "pen",
        "white",
        "tinted glass",
        "noisy glass",
        "glass in a frame",
        "pen on glass",
    ],
)
def test_tissue_in_transmitted_light_and_mere_glass_are_brightfield(image: Image) -> None:
    assert seen(image)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (glow((20, 40, 220)), "as in fluorescence"),
        (glow((20, 230, 20)), "as in fluorescence"),
        (glow((230, 0, 0), background=0), "as in fluorescence"),
        (glow((230, 60, 20)) + glow((0, 0, 0)) + amounts(1)[1] * np.array((10, 20, 200)), "as in fluorescence"),
        (glow((220, 220, 220)), "grey"),
        (glow((220, 217, 219)), "as in fluorescence"),
        (glow((0, 40, 5)), "nearly black"),
        (255 - h_and_e(), "as in fluorescence"),
        (grey(h_and_e()), "it is grey, all channels are equal"),
        (grey(h_and_e(0.3)), "it is grey, all channels are equal"),
        (
            h_and_e() / 16,
            "nearly black (99 of 100 pixels are at most 15 of 255), as are fluorescence and 12 bits stored",
        ),
        (np.zeros((50, 50, 3)), "nearly black"),
    ],
    ids=[
        "blue",
        "green",
        "red",
        "two colours",
        "grey light",
        "nearly grey light",
        "dim",
        "negative",
        "grey",
        "pale grey",
        "12 bits",
        "black",
    ],
)
def test_what_is_not_brightfield_is_refused_with_what_was_seen(image: Image, sentence: str) -> None:
    with pytest.raises(SlideError) as caught:
        seen(image)

    assert caught.value.cause is Cause.NOT_BRIGHTFIELD
    assert not caught.value.cause.transient
    assert sentence in str(caught.value)
    assert "--tissue.any-image" in str(caught.value)


def test_any_image_makes_tissue_of_all_of_a_slide_that_is_not_brightfield_and_changes_no_other() -> None:
    stained = np.clip(h_and_e(), 0, 255).astype(np.uint8)
    slide, reader = array_slide(stained, 8.0)
    lit, lit_reader = array_slide(np.clip(glow((20, 40, 220)), 0, 255).astype(np.uint8), 8.0)

    plain, allowed = find_tissue(reader, slide), find_tissue(reader, slide, any_image=True)

    assert (plain.mask == allowed.mask).all()
    assert find_tissue(lit_reader, lit, any_image=True).mask.all()


def test_the_setting_reaches_the_plan_and_leaves_the_fingerprints_of_other_runs(tmp_path: Path) -> None:
    path = write_tiff(
        tmp_path / "a.tif", [np.clip(glow((20, 40, 220)), 0, 255).astype(np.uint8).repeat(4, 0).repeat(4, 1)]
    )
    slide, reader = open_slide(path)

    with pytest.raises(SlideError, match="not a brightfield slide"):
        plan_slide(slide, reader, 32, 2.0, TilingSpec(), TissueSpec())
    plan = plan_slide(slide, reader, 32, 2.0, TilingSpec(), TissueSpec(any_image=True))

    assert len(plan.tile_index) == plan.grid.columns * plan.grid.rows
    assert TissueSpec().settings() == {"min_fraction": 0.25, "mpp": 8.0, "exclude_ink": True}
    assert TissueSpec(any_image=True).settings() == TissueSpec().settings() | {"any_image": True}


@pytest.mark.realdata
@pytest.mark.parametrize(
    "change", [lambda x: x, lambda x: 0.4 * x, lambda x: 255 - 0.1 * (255 - x)], ids=["", "dark", "pale"]
)
def test_real_slides_are_brightfield_however_they_were_scanned(shared: Path, change: Callable[[Image], Image]) -> None:
    for name in ("CMU-1-Small-Region.svs", "tcga-cr-7395-01a-01-ts1.svs"):
        slide, reader = open_slide(str(shared / "slides" / name), mpp_if_missing=0.5)
        pixels: Pixels = read_thumbnail(reader, slide, 8.0).pixels

        assert seen(change(pixels.astype(np.float64)))


@pytest.mark.realdata
def test_a_real_fluorescence_slide_is_refused(shared: Path) -> None:
    slide, reader = open_slide(str(shared / "field" / "test3-TRITC 2 (560).ndpi"), mpp_if_missing=0.5)

    with pytest.raises(SlideError, match="not a brightfield slide in colour: it is nearly black"):
        find_tissue(reader, slide)
