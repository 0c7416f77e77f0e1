import pytest
from hypothesis import given
from hypothesis import strategies as st

from histo.errors import Cause, StudyError
from histo.volumes.geometry.slices import choose_slices, require_several, slice_distance_mm

counts = st.integers(1, 700)


def positions(count: int, wanted: int) -> list[float]:
    return [(index + 0.5) * count / wanted for index in range(wanted)]


@given(counts, counts)
def test_even_takes_the_nearest_slice_and_the_lower_of_two(count: int, wanted: int) -> None:
    for index, place in zip(choose_slices(count, wanted), positions(count, wanted), strict=True):
        assert index is not None
        distance = abs(index + 0.5 - place)
        assert all(
            distance <= abs(other + 0.5 - place) + 1e-9 for other in (max(0, index - 1), min(count - 1, index + 1))
        )
        assert index == 0 or abs(index - 1 + 0.5 - place) > distance - 1e-9


@given(counts, counts)
def test_the_order_of_slices_is_kept(count: int, wanted: int) -> None:
    chosen = choose_slices(count, wanted)

    assert chosen == sorted(chosen, key=lambda index: index or 0)


@given(st.integers(4, 300), st.integers(0, 300), st.sampled_from(["even", "outer-middle"]))
def test_slices_are_distinct_where_there_are_enough(wanted: int, more: int, choice: str) -> None:
    chosen = choose_slices(wanted + more, wanted, choice)  # type: ignore[arg-type]

    assert len(set(chosen)) == wanted
    assert set(chosen) <= set(range(wanted + more))


@given(st.integers(4, 300), st.integers(0, 300))
def test_outer_middle_takes_both_ends_and_the_middle(wanted: int, more: int) -> None:
    count = wanted + more
    chosen = choose_slices(count, wanted, "outer-middle")

    low, high = -(-wanted // 4), wanted // 4
    middle = chosen[low : wanted - high]
    assert chosen[:low] == list(range(low))
    assert chosen[wanted - high :] == list(range(count - high, count))
    assert middle == list(range(middle[0], middle[0] + len(middle)))
    assert (count - high - 1 - middle[-1]) - (middle[0] - low) in (0, 1)


@given(st.integers(1, 50), st.integers(0, 50))
def test_pad_takes_every_slice_once_with_black_ones_around(count: int, more: int) -> None:
    chosen = choose_slices(count, count + more, fill="pad")

    assert [index for index in chosen if index is not None] == list(range(count))
    before = chosen.index(0)
    assert (more - before) - before in (0, 1)


def test_the_distance_of_slices_is_that_of_the_volume() -> None:
    assert slice_distance_mm(choose_slices(40, 20), 40, 2.5, "even") == 5
    assert slice_distance_mm(choose_slices(10, 20), 10, 2.5, "even") == 1.25
    assert slice_distance_mm(choose_slices(10, 20, fill="pad"), 10, 2.5, "even") == 2.5
    assert slice_distance_mm(choose_slices(41, 21, "outer-middle"), 41, 2, "outer-middle") == 4


def test_one_slice_is_no_volume() -> None:
    with pytest.raises(StudyError, match=r"^s1: one slice \(1 x 512 x 512\); leave out scouts") as raised:
        require_several((1, 512, 512), "s1")

    assert raised.value.cause == Cause.ONE_SLICE


def test_a_wrong_count_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="3 of 0 slices"):
        choose_slices(0, 3)
