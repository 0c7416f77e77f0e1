"""Label a region: read its tiles, classify them, write them as one part."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt

from histo.errors import Cause, HistoError, InputError, SlideError
from histo.input_files import digest, file_state, sampled_blocks
from histo.learn.bundle import bundle_hash
from histo.learn.predict.load import load_predictor
from histo.pipelines.labelling import tile_tables
from histo.pipelines.labelling.open_readers import Readers
from histo.pipelines.labelling.runtime import Runtime
from histo.pipelines.labelling.tasks import Counts, LabelJob, SlideWork, Summary
from histo.pipelines.labelling.work_clock import Clock
from histo.resample import Pixels
from histo.run.failure import describe_failure
from histo.run.isolation import Watchdog, guarded
from histo.slides.grid import Indices, Region
from histo.slides.tiles import cut_blocks, read_tiles

Places = Indices
"""Which of a region's tiles, `(n,)`."""
Block = tuple[Places, Pixels]
"""Tiles that were read together: their places, and their pixels `(n, size_px, size_px, 3)`."""


class RegionLabeler:
    """Reads a region's tiles, classifies them, writes them as one part, and returns one summary.

    It lives as long as a Ray actor, and keeps the network and the slide that it reads open. A plain loop or a test
    calls it just as well.
    """

    def __init__(self, job: LabelJob, runtime: Runtime = Runtime()) -> None:  # noqa: B008 -- frozen
        self._job, self._runtime = job, runtime
        on = runtime.device, runtime.threads, job.batch_size, job.precision, runtime.openvino
        self._predict = load_predictor(job.model, *on)
        if bundle_hash(job.model) != job.model_hash:
            raise HistoError(f"{job.model}: the bundle was changed while the run went on; label again")
        self._reads = ThreadPoolExecutor(runtime.threads, thread_name_prefix="read")
        self._watchdog = Watchdog(job.read_timeout_s)
        self._readers = Readers()
        self._clock = Clock()

    def __call__(self, region: Region, work: SlideWork) -> Summary:
        """Label one region; a failure becomes part of its summary."""
        counts, failure = None, None
        with self._clock.region():
            try:
                here = partial(self._label, region, work)
                counts = guarded(self._job, work.slide_id, region.name, here, _label_alone, self._runtime, region, work)
            except FloatingPointError:  # the bundle's fault, not the slide's: the run ends
                raise
            except Exception as error:  # noqa: BLE001 -- a region is the other boundary
                failure = describe_failure(_trouble(work) or error, f"{work.slide_id}, region {region.name}")
        of_slide = work.slide_id, work.columns, work.n_regions, region.name
        return Summary(*of_slide, counts, *self._clock.take(), failure)

    def _label(self, region: Region, work: SlideWork) -> Counts:
        table = tile_tables.staged_part(self._job, region, work)
        if table is None:
            probabilities, bad = self._classify(region, work)
            if (error := _trouble(work, look_inside=bool(bad.any()))) is not None:
                raise error
            table = tile_tables.tile_table(self._job, region, work, probabilities, bad)
            tile_tables.write_region(self._job, region, work, table)
        return tile_tables.count(table, self._job.classes)

    def _classify(self, region: Region, work: SlideWork) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return probabilities `(tiles, classes)`, and which tiles could not be read, `(tiles,)`."""
        count = len(region.tile_index)
        probabilities, bad = np.zeros((count, len(self._job.classes)), np.float32), np.ones(count, np.bool_)
        places: deque[Places] = deque()
        blocks = self._clock.waiting_for(self._watchdog.each(self._read_ahead(region, work)))

        def batches() -> Iterator[Pixels]:
            for where, tiles in cut_batches(blocks, self._predict.batch_size):
                places.append(where)
                yield tiles

        for predicted in self._predict.over(batches()):
            where = places.popleft()
            probabilities[where] = predicted
            bad[where] = False
        return probabilities, bad

    def _read_ahead(self, region: Region, work: SlideWork) -> Iterator[Block]:
        """Yield the readable tiles, block by block, while threads read the blocks after; memory holds a few of them."""
        waiting: deque[tuple[Places, Future[tuple[Pixels, npt.NDArray[np.bool_]]]]] = deque()

        def first() -> Block:
            places, read = waiting.popleft()
            tiles, bad = read.result()
            return (places[~bad], tiles[~bad]) if bad.any() else (places, tiles)

        for places in cut_blocks(work.grid, region.tile_index):
            waiting.append((places, self._reads.submit(self._read, region.tile_index[places], work)))
            if len(waiting) > self._runtime.threads:
                yield first()
        while waiting:
            yield first()

    def _read(self, tile_index: Indices, work: SlideWork) -> tuple[Pixels, npt.NDArray[np.bool_]]:
        reader = self._readers.get(work.slide, work.columns["reader"])
        return read_tiles(reader, work.slide, work.sampling, work.grid, tile_index)


def cut_batches(blocks: Iterable[Block], size: int) -> Iterator[Block]:
    """Cut blocks of tiles, given with their places, into batches of equal size; only the last one may be smaller."""
    waiting: list[Block] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += len(block[0])
        if count >= size:
            places, tiles = _join(waiting)
            whole = count - count % size
            for start in range(0, whole, size):
                yield places[start : start + size], tiles[start : start + size]
            waiting, count = [(places[whole:], tiles[whole:])], count - whole
    if count:
        yield _join(waiting)


def _join(blocks: Sequence[Block]) -> Block:
    filled = [block for block in blocks if len(block[0])]
    if len(filled) == 1:
        return filled[0]
    return np.concatenate([places for places, _ in filled]), np.concatenate([tiles for _, tiles in filled])


def _label_alone(job: LabelJob, runtime: Runtime, region: Region, work: SlideWork) -> Counts:
    return RegionLabeler(job, runtime)._label(region, work)  # noqa: SLF001 -- the same, in a process of its own


def _trouble(work: SlideWork, look_inside: bool = True) -> InputError | None:
    """Say so if a slide's files are not those that were planned: its tiles would be of two slides, or of none.

    Where something could not be decoded, the files are also read without a decoder (`look_inside`), since a lost drive
    must not be taken for a damaged slide.
    """
    try:
        state = file_state(work.files)
        if look_inside:
            digest(sampled_blocks(work.files))
    except InputError as error:
        return error
    if state == work.state:
        return None
    return SlideError(
        Cause.CHANGED, f"{work.slide_id}: the file changed while it was read; label again when it is complete"
    )
