"""Drive the drawing of slides: tasks to workers, failures to the last lines."""

from collections.abc import Sequence

from histo.pipelines.pictures.worker import Drawer, Drawn, PictureJob, PictureTask
from histo.run.placement import Placement
from histo.run.progress import CountProgress
from histo.run.stream.drive import drive
from histo.run.stream.units import UnitWork
from histo.run.stream.worker import Crew


def draw_all(job: PictureJob, tasks: Sequence[PictureTask], placement: Placement) -> list[Drawn]:
    """Draw slides; returns those that failed.

    Raises:
        HistoError: If the run cannot go on: the output cannot be written, or no worker can start.
    """
    drawing = _Drawing(job, tasks, placement)
    drive(drawing, placement)
    drawing.end()
    return drawing.failed


class _Drawing(UnitWork[Drawn]):
    def __init__(self, job: PictureJob, tasks: Sequence[PictureTask], placement: Placement) -> None:
        by_name = {task.slide_id: (task,) for task in tasks}
        super().__init__(Crew(Drawer, (job,), job.out), by_name, placement, CountProgress("slides", len(tasks), 0))
        self.failed: list[Drawn] = []
        self._done = 0

    @property
    def done(self) -> int:
        """See `UnitWork.done`."""
        return self._done

    def settle(self, answer: Drawn) -> None:
        """See `UnitWork.settle`."""
        self._done += 1
        if answer.error_code is not None:
            self.failed.append(answer)
