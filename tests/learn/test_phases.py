import pytest
from pydantic import ValidationError

from histo.learn.fit.phases import FitSpec, HeadSpec, Phase, TuneSpec, phases_left

SPEC = FitSpec(head=HeadSpec(epochs=2), tune=TuneSpec(epochs=3), warmup_epochs=0)


def past(*phases: str, losses: tuple[float, ...] = ()) -> list[dict[str, object]]:
    values = losses or tuple(1 / (i + 1) for i in range(len(phases)))
    return [{"phase": phase, "val_loss": loss} for phase, loss in zip(phases, values, strict=True)]


def rates(spec: FitSpec, epochs: int, steps: int = 10) -> list[float]:
    phase = Phase("tune", spec.model_copy(update={"tune": TuneSpec(epochs=epochs, learning_rate=1.0)}))
    return [phase.learning_rate(step, steps) for step in range(epochs * steps)]


@pytest.mark.parametrize(
    ("finished", "left"),
    [
        ((), [("head", 1), ("tune", 1)]),
        (("head",), [("head", 1), ("tune", 2)]),
        (("head", "head"), [("tune", 3)]),
        (("head", "head", "tune"), [("tune", 3)]),
        (("head", "head", "tune", "tune", "tune"), []),
    ],
)
def test_the_phases_that_are_left_say_where_they_began(finished: tuple[str, ...], left: list[tuple[str, int]]) -> None:
    assert [(phase.name, phase.begin) for phase in phases_left(SPEC, past(*finished))] == left


def test_a_phase_begins_after_the_epochs_that_its_predecessor_added() -> None:
    lines = past()
    begins = []

    for phase in phases_left(SPEC, lines):
        begins.append((phase.name, phase.begin, phase.end))
        lines += past(*[phase.name] * 2)

    assert begins == [("head", 1, 2), ("tune", 3, 5)]


def test_a_phase_that_stopped_early_is_not_taken_up_again() -> None:
    spec = SPEC.model_copy(update={"patience": 1})

    assert [phase.name for phase in phases_left(spec, past("head", "head", "tune", "tune", losses=(2, 1, 3, 4)))] == []
    assert [phase.name for phase in phases_left(SPEC, past("head", "head", "tune", "tune", losses=(2, 1, 3, 4)))]


def test_a_phase_of_no_epochs_is_left_out() -> None:
    spec = SPEC.model_copy(update={"head": HeadSpec(epochs=0)})

    assert [phase.name for phase in phases_left(spec, [])] == ["tune"]


def test_no_epochs_at_all_are_refused() -> None:
    with pytest.raises(ValidationError, match="no epochs"):
        FitSpec(head=HeadSpec(epochs=0), tune=TuneSpec(epochs=0))


def test_the_step_size_rises_over_the_warm_up_and_not_without_one() -> None:
    warm, cold = rates(SPEC.model_copy(update={"warmup_epochs": 1.0}), 3), rates(SPEC, 3)

    assert warm[:10] == sorted(warm[:10])
    assert warm[0] < 0.1 < max(warm) == 1
    assert cold[0] == 1


def test_the_cosine_falls_to_zero_and_a_constant_does_not() -> None:
    cosine, constant = rates(SPEC, 3), rates(SPEC.model_copy(update={"schedule": "constant"}), 3)

    assert cosine == sorted(cosine, reverse=True)
    assert cosine[15] == pytest.approx(0.5)
    assert cosine[-1] < 0.01
    assert set(constant) == {1.0}
