"""Draw the pictures of one slide; a failure becomes the answer."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import tifffile
from PIL import Image

from histo import store
from histo.input_files import safe_path
from histo.remote.cache import Cache
from histo.remote.location import AnyPath
from histo.report.slide.colours import class_colours
from histo.report.slide.labels import read_labels
from histo.report.slide.panel import read_panel
from histo.report.slide.picture import KEY, class_map, draw, probability_map
from histo.report.slide.tiff import write_class_map
from histo.run.failure import describe_failure
from histo.run.isolation import Watchdog, guarded
from histo.slides.finding.folder import CLASS_MAPS

PICTURES, PROBABILITIES = "pictures", "probabilities"
FOLDERS = (PICTURES, PROBABILITIES, CLASS_MAPS)
ALGORITHM = 3
"""Version of what is drawn; a higher one draws all slides anew."""
_WORK = "picture"


@dataclass(frozen=True)
class PictureTask:
    """A slide that is to be drawn.

    Attributes:
        slide_id: The slide.
        files: Its files, the one to open first.
        table: Its tile table.
        rows_id: Of the table's rows.
    """

    slide_id: str
    files: tuple[str, ...]
    table: AnyPath
    rows_id: str


@dataclass(frozen=True)
class PictureJob:
    """What is the same for every slide.

    Attributes:
        out: Folder of the label run.
        read_timeout_s: Seconds that reading a slide may take.
        probabilities: Classes of which a map of probabilities is drawn.
        colours: Chosen colours of classes.
        cache: Copies of remote slides on each node.
    """

    out: AnyPath
    read_timeout_s: float
    probabilities: tuple[str, ...]
    colours: Mapping[str, str]
    cache: Cache = field(default_factory=Cache)

    def key(self, rows_id: str) -> str:
        """Return the sha256 of all that the pictures of a slide depend on."""
        made_of = [ALGORITHM, rows_id, self.probabilities, sorted(self.colours.items())]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

    def picture(self, slide_id: str, of: str | None = None) -> AnyPath:
        """Where a slide's picture stands, or that of the probabilities of a class."""
        folder = PICTURES if of is None else f"{PROBABILITIES}/{safe_path(of.replace('/', '%2F'))}"
        return self.out / folder / f"{safe_path(slide_id)}.png"

    def class_map(self, slide_id: str) -> AnyPath:
        """Where a slide's class map stands."""
        return self.out / CLASS_MAPS / f"{safe_path(slide_id)}.tif"

    def is_done(self, task: PictureTask) -> bool:
        """Whether all pictures of a slide are there, made of what they would be made of now."""
        made = [self.class_map(task.slide_id)]
        made += [self.picture(task.slide_id, of) for of in (None, *self.probabilities)]
        return all(key_of(path) == self.key(task.rows_id) for path in made)


def key_of(path: AnyPath) -> str | None:
    """Return what a picture or class map says that it was made of; nothing if it is none of histo's."""
    try:
        with store.opened(path) as content:
            if path.suffix == ".png":
                with Image.open(content) as image:
                    return str(image.info[KEY])
            with tifffile.TiffFile(content) as file:
                said: dict[str, Any] = json.loads(file.pages.first.description)
                return str(said["key"])
    except (OSError, ValueError, KeyError, TypeError, tifffile.TiffFileError):
        return None


@dataclass(frozen=True)
class Drawn:
    """What became of a slide.

    Attributes:
        unit: Its `slide_id`.
        error_code: Cause of the failure, if there was one.
        error: What is wrong, and what to do.
    """

    unit: str
    error_code: str | None = None
    error: str | None = None


class Drawer:
    """Draws slides. It lives as long as a Ray actor; a plain loop or a test calls it just as well."""

    def __init__(self, job: PictureJob) -> None:
        self._job = job

    def __call__(self, task: PictureTask) -> Drawn:
        """Draw one slide; whatever goes wrong becomes its answer."""
        try:
            guarded(self._job, task.slide_id, _WORK, partial(draw_slide, self._job, task), draw_slide, task)
        except Exception as error:  # noqa: BLE001 -- a slide is a boundary: anything becomes its answer
            failure = describe_failure(error, task.slide_id, batches=False)
            return Drawn(task.slide_id, failure["error_code"], failure["error"])
        return Drawn(task.slide_id)


def draw_slide(job: PictureJob, task: PictureTask) -> None:
    """Draw a slide; its class map is written last, and says that all is done."""
    labels = read_labels(task.table, task.slide_id, job.probabilities)
    colours = class_colours(labels.classes, job.colours)
    with job.cache.local(task.files) as copies, Watchdog(job.read_timeout_s).guard():
        panel = read_panel(Path(copies.files[0]), labels)
    date, key = datetime.fromtimestamp(store.changed_s(task.table), UTC).date().isoformat(), job.key(task.rows_id)
    draw(labels, panel, class_map(labels, colours), date, job.picture(task.slide_id), key)
    for name in job.probabilities:
        draw(labels, panel, probability_map(labels, name), date, job.picture(task.slide_id, name), key)
    write_class_map(labels, colours, job.class_map(task.slide_id), key)
