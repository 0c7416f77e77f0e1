"""The worker that labels regions: it reads their tiles, classifies them, and writes them down."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from histo.errors import Cause, HistoError, ReadError, SlideError
from histo.learn.bundle import bundle_hash
from histo.pipelines import parts
from histo.pipelines.isolation import Watchdog, guarded
from histo.pipelines.work import Counts, LabelJob, SlideWork, Summary, describe_failure
from histo.resample import Pixels
from histo.slides.collection import digest, file_state, sampled_blocks
from histo.slides.grid import Region
from histo.slides.slide import OpenSlideReader
from histo.slides.tiles import read_tile


class RegionLabeler:
    """Reads a region's tiles, classifies them, writes them as one part, and returns one summary.

    It lives as long as a Ray actor, and keeps the network and the slide that it reads open. A plain loop or a test
    calls it just as well.
    """

    def __init__(self, job: LabelJob) -> None:
        import torch  # noqa: PLC0415 -- the driver and the tasks that plan must not load it

        from histo.learn.predict import Predictor  # noqa: PLC0415 -- likewise

        torch.set_num_threads(job.threads)
        self._job = job
        self._predict = Predictor(job.model, job.device, job.batch_size)
        if bundle_hash(job.model) != job.model_hash:
            raise HistoError(f"{job.model}: the bundle was changed while the run went on; label again")
        self._reads = ThreadPoolExecutor(job.threads, thread_name_prefix="read")
        self._watchdog = Watchdog(job.read_timeout_s)
        self._local = threading.local()

    def __call__(self, region: Region, work: SlideWork) -> Summary:
        """Label one region; a failure becomes part of its summary."""
        start = time.perf_counter()
        counts, failure = None, None
        try:
            here = partial(self._label, region, work)
            counts = guarded(self._job, work.slide_id, region.name, here, _label_alone, region, work)
        except FloatingPointError:  # the bundle's fault, not the slide's: the run ends
            raise
        except Exception as error:  # noqa: BLE001 -- a region is the other boundary
            failure = describe_failure(_trouble(work) or error, f"{work.slide_id}, region {region.name}")
        return Summary(counts, time.perf_counter() - start, failure)

    def ready(self) -> None:
        """Answer, once the network is loaded."""

    def _label(self, region: Region, work: SlideWork) -> Counts:
        table = parts.staged_part(self._job, region, work)
        if table is None:
            probabilities, bad = self._classify(region, work)
            if (error := _trouble(work, look_inside=bool(bad.any()))) is not None:
                raise error
            table = parts.tile_table(self._job, region, work, probabilities, bad)
            parts.write_region(self._job, region, work, table)
        return parts.count(table, self._job.classes)

    def _classify(self, region: Region, work: SlideWork) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return probabilities `(tiles, classes)`, and which tiles could not be read, `(tiles,)`."""
        count = len(region.tile_index)
        probabilities, bad = np.zeros((count, len(self._job.classes)), np.float32), np.ones(count, np.bool_)
        tiles = enumerate(self._watchdog.each(self._read_ahead(region, work)))
        readable = ((i, tile) for i, tile in tiles if tile is not None)
        while batch := list(islice(readable, self._job.batch_size)):
            places = [i for i, _ in batch]
            probabilities[places] = self._predict(np.stack([tile for _, tile in batch]))
            bad[places] = False
        return probabilities, bad

    def _read_ahead(self, region: Region, work: SlideWork) -> Iterator[Pixels | None]:
        """Yield the tiles in order, while threads read the ones after; memory holds two batches of them."""
        ahead = 2 * self._job.batch_size + self._job.threads
        waiting: deque[Future[Pixels | None]] = deque()
        for index in region.tile_index.tolist():
            waiting.append(self._reads.submit(self._read, index, work))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _read(self, tile_index: int, work: SlideWork) -> Pixels | None:
        """Read one tile; None if its pixels cannot be decoded."""
        grid_x, grid_y = work.grid.places(np.asarray([tile_index]))
        try:
            return read_tile(
                self._reader(work.slide.path), work.slide, work.sampling, work.grid, int(grid_x[0]), int(grid_y[0])
            )
        except ReadError:
            return None

    def _reader(self, path: str) -> OpenSlideReader:
        """Return this thread's reader of a slide, and close that of the slide before."""
        current: Any = getattr(self._local, "reader", None)
        if current is None or current[0] != path:
            if current is not None:
                current[1].close()
            current = (path, OpenSlideReader(path))
            self._local.reader = current
        reader: OpenSlideReader = current[1]
        return reader


def _label_alone(job: LabelJob, region: Region, work: SlideWork) -> Counts:
    return RegionLabeler(job)._label(region, work)  # noqa: SLF001 -- the same, in a process of its own


def _trouble(work: SlideWork, look_inside: bool = True) -> SlideError | None:
    """Say so if a slide's files are not those that were planned: its tiles would be of two slides, or of none.

    Where something could not be decoded, the files are also read without a decoder (`look_inside`), since a lost drive
    must not be taken for a damaged slide.
    """
    try:
        state = file_state(work.files)
        if look_inside:
            digest(sampled_blocks(work.files))
    except SlideError as error:
        return error
    if state == work.state:
        return None
    return SlideError(
        Cause.CHANGED, f"{work.slide_id}: the file changed while it was read; label again when it is complete"
    )
