from dataclasses import replace

import pytest
from helpers.fake_slides import fake_slide
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from histo.errors import Cause, SlideError
from histo.slides.resolution import choose_sampling
from histo.slides.slide import Slide

laws = settings(max_examples=100)
PYRAMIDS = [(1,), (1, 4), (1, 4, 16), (1, 2, 4, 8), (1, 4.0003, 15.998)]
mpps = st.floats(0.1, 1)
targets = st.floats(0.1, 20)
slides = st.builds(
    lambda downsamples, x, y: fake_slide(4000, 3000, downsamples, (x, y)), st.sampled_from(PYRAMIDS), mpps, mpps
)
tolerances = st.sampled_from([0, 0.02, 0.1])


def is_usable(slide: Slide, downsample: float, mpp: float, tolerance: float) -> bool:
    return max(slide.mpp_x, slide.mpp_y) * downsample * (1 - tolerance) <= mpp


def test_whole_blocks_are_averaged_where_the_target_is_a_multiple() -> None:
    sampling = choose_sampling(fake_slide(1000, 800, mpp=0.25), 0.5)

    assert (sampling.level, sampling.ratio_x, sampling.ratio_y) == (0, 2, 2)
    assert sampling.effective_mpp == 0.5


def test_a_deviation_within_tolerance_is_recorded() -> None:
    sampling = choose_sampling(fake_slide(1000, 800, mpp=0.2498), 0.5)

    assert (sampling.ratio_x, sampling.ratio_y) == (2, 2)
    assert sampling.effective_mpp == pytest.approx(0.4996)


def test_a_deviation_beyond_tolerance_is_resampled_to_the_request() -> None:
    sampling = choose_sampling(fake_slide(1000, 800, mpp=0.3), 0.5)

    assert sampling.ratio_x == pytest.approx(0.5 / 0.3)
    assert sampling.effective_mpp == pytest.approx(0.5)


def test_without_tolerance_the_request_is_met_exactly() -> None:
    sampling = choose_sampling(fake_slide(1000, 800, mpp=0.2498), 0.5, tolerance=0)

    assert sampling.effective_mpp == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("mpp", "level", "ratio"), [(0.25, 0, 1), (0.5, 0, 2), (1.0, 1, 1), (2.0, 1, 2), (4.0, 2, 1), (12.0, 2, 3)]
)
def test_the_coarsest_level_that_is_not_coarser_is_read(mpp: float, level: int, ratio: float) -> None:
    sampling = choose_sampling(fake_slide(4000, 3000, (1, 4, 16), mpp=0.25), mpp)

    assert (sampling.level, sampling.ratio_x) == (level, ratio)
    assert sampling.scale_x == ratio * (1, 4, 16)[level]


def test_a_level_that_is_coarser_within_tolerance_is_read() -> None:
    sampling = choose_sampling(fake_slide(4000, 3000, (1, 2), mpp=0.2523), 0.5)

    assert (sampling.level, sampling.ratio_x) == (1, 1)
    assert sampling.effective_mpp == pytest.approx(0.5046)


def test_each_axis_has_its_own_ratio() -> None:
    sampling = choose_sampling(fake_slide(1000, 800, mpp=(0.25, 0.5)), 1.0)

    assert (sampling.ratio_x, sampling.ratio_y) == (4, 2)
    assert (sampling.scale_x, sampling.scale_y) == (4, 2)


def test_the_level_is_chosen_by_the_coarser_axis() -> None:
    sampling = choose_sampling(fake_slide(4000, 3000, (1, 4), mpp=(0.25, 0.3)), 1.0)

    assert sampling.level == 0


def test_the_effective_resolution_is_the_geometric_mean_of_both_axes() -> None:
    sampling = choose_sampling(fake_slide(1000, 800, mpp=(0.2475, 0.2525)), 0.5)

    assert (sampling.effective_mpp_x, sampling.effective_mpp_y) == pytest.approx((0.495, 0.505))
    assert sampling.effective_mpp**2 == pytest.approx(0.495 * 0.505)


def test_a_slide_coarser_than_the_target_is_refused_with_both_resolutions() -> None:
    with pytest.raises(
        SlideError, match=r"fake\.svs: scanned at 1 x 1\.1 µm/px, coarser than the 0\.5 µm/px"
    ) as caught:
        choose_sampling(fake_slide(1000, 800, mpp=(1.0, 1.1)), 0.5)

    assert caught.value.cause is Cause.TOO_COARSE
    assert "--tiling.allow-upsample" in str(caught.value)


def test_a_slide_coarser_than_the_target_is_enlarged_where_that_is_allowed() -> None:
    sampling = choose_sampling(fake_slide(1000, 800, (1, 4), mpp=1.0), 0.6, allow_upsample=True)

    assert (sampling.level, sampling.ratio_x) == (0, pytest.approx(0.6))
    assert sampling.effective_mpp == pytest.approx(0.6)


@laws
@given(slides, targets, tolerances)
def test_the_effective_resolution_is_the_request_or_an_integer_ratio_within_tolerance(
    slide: Slide, mpp: float, tolerance: float
) -> None:
    sampling = choose_sampling(slide, mpp, tolerance, allow_upsample=True)

    for ratio, effective in (
        (sampling.ratio_x, sampling.effective_mpp_x),
        (sampling.ratio_y, sampling.effective_mpp_y),
    ):
        if ratio == round(ratio):
            assert abs(mpp / effective - 1) <= tolerance + 1e-9
        else:
            assert effective == pytest.approx(mpp, rel=1e-12)


@laws
@given(slides, targets, tolerances)
def test_nothing_is_enlarged_unless_that_is_allowed(slide: Slide, mpp: float, tolerance: float) -> None:
    assume(is_usable(slide, 1, mpp, tolerance))

    sampling = choose_sampling(slide, mpp, tolerance)

    assert min(sampling.ratio_x, sampling.ratio_y) >= 1


@laws
@given(slides, targets, tolerances)
def test_no_coarser_level_than_the_one_that_is_read_would_do(slide: Slide, mpp: float, tolerance: float) -> None:
    sampling = choose_sampling(slide, mpp, tolerance, allow_upsample=True)

    usable = [level.index for level in slide.levels if is_usable(slide, level.downsample, mpp, tolerance)]
    assert sampling.level == max(usable, default=0)


@laws
@given(slides, targets)
def test_scale_and_ratio_differ_by_the_downsample_of_the_level(slide: Slide, mpp: float) -> None:
    sampling = choose_sampling(slide, mpp, allow_upsample=True)

    downsample = slide.levels[sampling.level].downsample
    assert (sampling.scale_x, sampling.scale_y) == (sampling.ratio_x * downsample, sampling.ratio_y * downsample)
    assert sampling.effective_mpp_x == pytest.approx(sampling.scale_x * slide.mpp_x)
    assert sampling.effective_mpp_y == pytest.approx(sampling.scale_y * slide.mpp_y)


def test_a_level_that_cannot_be_read_pixel_by_pixel_is_passed_over() -> None:
    slide = fake_slide(4443, 3567, downsamples=(1, 2))
    blurred = replace(slide, levels=(slide.levels[0], replace(slide.levels[1], downsample=2.0, exact=False)))

    sampling = choose_sampling(blurred, 0.5)

    assert (sampling.level, sampling.ratio_x) == (0, 2)


def test_a_slide_that_is_coarser_by_all_the_tolerance_is_not_enlarged() -> None:
    slide = fake_slide(1000, 1000, mpp=0.5)

    assert choose_sampling(slide, 0.4901, tolerance=0.02).ratio_x == 1
    with pytest.raises(SlideError):
        choose_sampling(slide, 0.4899, tolerance=0.02)
