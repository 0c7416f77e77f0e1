"""Drive a run of one task for each slide or study: a graph of one stage."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

import ray.data

from histo.errors import Cause, HistoError
from histo.remote.location import AnyPath
from histo.run.placement import Placement
from histo.run.progress import CountProgress
from histo.run.stream.drive import Work, drive
from histo.run.stream.graph import tasks_in_blocks, work
from histo.run.stream.worker import Answer, Crew


class UnitAnswer(Answer, Protocol):
    """What a worker makes of a slide or a study."""

    @property
    def error(self) -> str | None:
        """What is wrong, and what to do, if it failed."""


AnswerT = TypeVar("AnswerT", bound=UnitAnswer)


class UnitWork(Work[AnswerT]):
    """A run whose tasks are slides or studies.

    Args:
        crew: What the workers are made of.
        tasks: What is to be done, by `slide_id` or `study_id`.
        placement: Where the workers are.
        progress: Of the run.
    """

    def __init__(self, crew: Crew, tasks: Mapping[str, object], placement: Placement, progress: CountProgress) -> None:
        self._crew, self._open, self._placement, self._progress = crew, dict(tasks), placement, progress
        self._together = 1

    @property
    def out(self) -> AnyPath:
        """See `Work.out`."""
        return self._crew.out

    def is_open(self, unit: str) -> bool:
        """See `Work.is_open`."""
        return unit in self._open

    def graph(self, left_out: tuple[str, ...]) -> ray.data.Dataset | None:
        """See `Work.graph`: tasks -> answers."""
        if not self._open:
            return None
        tasks = tasks_in_blocks([*self._open.items()], self._together)
        return work(tasks, replace(self._crew, left_out=left_out), self._placement)

    def enter(self, answer: AnswerT) -> None:
        """See `Work.enter`."""
        if answer.error_code == Cause.STORAGE:
            raise HistoError(f"--out {self.out}: {answer.error}; what is finished stays")
        del self._open[answer.unit]
        self.settle(answer)

    def between(self) -> None:
        """See `Work.between`."""
        self._progress.show(self.done)

    def say(self, text: str) -> None:
        """See `Work.say`."""
        self._progress.say(text)

    def end(self) -> None:
        """Say what was done."""
        self._progress.end(self.done)

    @abstractmethod
    def settle(self, answer: AnswerT) -> None:
        """Enter what became of a slide or a study."""

    @property
    @abstractmethod
    def done(self) -> int:
        """Number of those that are done."""


def gather(
    crew: Crew, tasks: Mapping[str, object], placement: Placement, noun: str, together: int = 1
) -> list[AnswerT]:
    """Have workers do a task for each slide or study; returns what became of each.

    Args:
        crew: What the workers are made of.
        tasks: What is to be done, by `slide_id` or `study_id`.
        placement: Where the workers are.
        noun: What several are called.
        together: Tasks in a block, where there are many small ones.

    Raises:
        HistoError: If the run cannot go on: the output cannot be written, or no worker can start.
    """
    work: _Gathering[AnswerT] = _Gathering(crew, tasks, placement, CountProgress(noun, len(tasks), 0), together)
    drive(work, placement)
    work.end()
    return work.answers


class _Gathering(UnitWork[AnswerT]):
    def __init__(
        self,
        crew: Crew,
        tasks: Mapping[str, object],
        placement: Placement,
        progress: CountProgress,
        together: int,
    ) -> None:
        super().__init__(crew, tasks, placement, progress)
        self._together = together
        self.answers: list[AnswerT] = []

    @property
    def done(self) -> int:
        """See `UnitWork.done`."""
        return len(self.answers)

    def settle(self, answer: AnswerT) -> None:
        """See `UnitWork.settle`."""
        self.answers.append(answer)
