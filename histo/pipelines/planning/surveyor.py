"""Look at one slide for a plan: its header, or its tiles."""

from dataclasses import dataclass

from histo.pipelines.labelling.plan_worker import (
    header_columns,
    kept_file,
    known,
    opened,
    plan_columns,
    plan_found,
    plan_opened,
)
from histo.pipelines.labelling.tasks import LabelJob, SlideTask
from histo.slides.grid import Grid
from histo.slides.plan import KeptTiles, lay_tiles
from histo.slides.spec import TilingSpec
from histo.tables import Row


@dataclass(frozen=True)
class Surveyed:
    """What is known of a slide.

    Attributes:
        unit: Its `slide_id`.
        columns: Of the plan, and some of the ledger.
    """

    unit: str
    columns: Row

    @property
    def error_code(self) -> str | None:
        """See `run.stream.worker.Answer`."""
        return self.columns.get("error_code")

    @property
    def error(self) -> str | None:
        """See `run.stream.units.UnitAnswer`."""
        return self.columns.get("error")


class Surveyor:
    """Looks at slides. It lives as long as a Ray actor; a plain loop or a test calls it just as well.

    Args:
        job: The label run that is planned; its output folder is that of the plan.
        exact: Whether tissue and tiles are found.
    """

    def __init__(self, job: LabelJob, exact: bool) -> None:
        self._job, self._look = job, look_for_kept_tiles if exact else look_at_header

    def __call__(self, found: SlideTask) -> Surveyed:
        """Look at a slide; whatever goes wrong becomes some of its columns."""
        return Surveyed(found.slide_id, plan_found(self._job, found, self._look).columns)


def look_at_header(job: LabelJob, found: SlideTask, columns: Row) -> None:
    """Open a slide, and lay the grid of its tiles."""
    with opened(job, found, columns) as (slide, reader):
        sampling, grid = lay_tiles(slide, job.size_px, job.mpp, TilingSpec.model_validate(job.tiling))
        columns |= header_columns(slide, sampling, reader.name) | _grid_columns(grid)


def look_for_kept_tiles(job: LabelJob, found: SlideTask, columns: Row) -> None:
    """Find the tiles of a slide, and keep them for the label run."""
    with opened(job, found, columns) as (slide, reader):
        plan = plan_opened(job, found, columns, slide, reader)
        key = job.plan_fingerprint(*known(slide, columns))
    columns |= plan_columns(plan) | _grid_columns(plan.grid)
    kept = KeptTiles(plan.tile_index, plan.tissue_fraction, plan.tissue_mm2)
    path = kept_file(job.out, found.slide_id)
    if KeptTiles.read(path, key) is None:
        kept.write(path, key)


def _grid_columns(grid: Grid) -> Row:
    return {"n_grid": grid.columns * grid.rows, "grid_columns": grid.columns}
