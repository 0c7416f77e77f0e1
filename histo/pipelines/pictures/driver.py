"""Drive the drawing of slides: tasks to workers, failures to the last lines."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ray.data

from histo.errors import Cause, HistoError
from histo.pipelines.pictures.worker import Drawer, Drawn, PictureJob, PictureTask
from histo.run.placement import Placement
from histo.run.progress import CountProgress
from histo.run.stream.drive import Work, drive
from histo.run.stream.graph import tasks_in_blocks, work
from histo.run.stream.worker import Crew


def draw_all(job: PictureJob, tasks: Sequence[PictureTask], placement: Placement) -> list[Drawn]:
    """Draw slides; returns those that failed.

    Raises:
        HistoError: If the run cannot go on: the output cannot be written, or no worker can start.
    """
    drawing = _Drawing(job, tasks, placement)
    drive(drawing, placement)
    return drawing.end()


class _Drawing(Work[Drawn]):
    def __init__(self, job: PictureJob, tasks: Sequence[PictureTask], placement: Placement) -> None:
        self._crew, self._placement = Crew(Drawer, (job,), job.out), placement
        self._open = {task.slide_id: task for task in tasks}
        self._failed: list[Drawn] = []
        self._done = 0
        self._progress = CountProgress("slides", len(tasks), 0)

    @property
    def out(self) -> Path:
        """See `Work.out`."""
        return self._crew.out

    def is_open(self, unit: str) -> bool:
        """See `Work.is_open`."""
        return unit in self._open

    def graph(self, left_out: tuple[str, ...]) -> ray.data.Dataset | None:
        """See `Work.graph`: slides -> pictures."""
        if not self._open:
            return None
        slides = tasks_in_blocks([(slide_id, (task,)) for slide_id, task in self._open.items()])
        return work(slides, replace(self._crew, left_out=left_out), self._placement)

    def enter(self, answer: Drawn) -> None:
        """See `Work.enter`."""
        if answer.error_code == Cause.STORAGE:
            raise HistoError(f"--out {self.out}: {answer.error}; what is finished stays")
        del self._open[answer.unit]
        self._done += 1
        if answer.error_code is not None:
            self._failed.append(answer)

    def between(self) -> None:
        """See `Work.between`."""
        self._progress.show(self._done)

    def say(self, text: str) -> None:
        """See `Work.say`."""
        self._progress.say(text)

    def end(self) -> list[Drawn]:
        """Say what was done; returns the slides that failed."""
        self._progress.end(self._done)
        return self._failed
