"""Label a region: read its tiles, classify them, write them as one part."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import numpy.typing as npt

from histo.errors import HistoError
from histo.learn.bundle import bundle_hash
from histo.learn.predict.load import load_predictor
from histo.pipelines.labelling import tile_tables
from histo.pipelines.labelling.region_reader import (
    Bad,
    Block,
    Places,
    Quality,
    RegionReader,
    attempted,
    check_unchanged,
)
from histo.pipelines.labelling.runtime import Runtime, here
from histo.pipelines.labelling.tasks import Counts, LabelJob, SlideWork, Summary
from histo.pipelines.labelling.work_clock import Clock, Effort
from histo.resample import Pixels
from histo.slides.grid import Region


class RegionLabeler:
    """Reads a region's tiles, classifies them, writes them as one part, and returns one summary.

    It lives as long as a Ray actor, and keeps the network and the slide that it reads open. A plain loop or a test
    calls it just as well.
    """

    def __init__(self, job: LabelJob, runtime: Runtime = Runtime()) -> None:  # noqa: B008 -- frozen
        runtime = runtime.on_this_node()
        self._job, self._runtime = job, runtime
        self._network = _Network(job, runtime)
        self._clock = Clock()
        self._reader = RegionReader(job, runtime, self._clock)

    def __call__(self, region: Region, work: SlideWork) -> Summary:
        """Label one region; a failure becomes part of its summary."""
        with self._clock.region():
            here = partial(self._label, region, work)
            counts, failure = attempted(self._job, self._runtime, region, work, here, _label_alone)
        return Summary.of(region, work, counts, self._clock.take(), failure)

    def _label(self, region: Region, work: SlideWork) -> Counts:
        if (kept := tile_tables.kept_counts(self._job, region, work)) is not None:
            return kept
        with self._reader.here(work) as here:
            return self._label_here(region, here)

    def _label_here(self, region: Region, work: SlideWork) -> Counts:
        if (kept := self._reader.completed(region, work)) is not None:
            return kept
        quality = self._reader.unmeasured(region)
        blocks = self._clock.waiting_for(self._reader.blocks(region, work, quality))
        probabilities, bad = self._network.classify(blocks, len(region.tile_index))
        check_unchanged(work, bad)
        return self._network.write(region, work, probabilities, bad, quality)


class TileClassifier:
    """Classifies the tiles of regions that others read, writes each as one part, and returns one summary."""

    def __init__(self, job: LabelJob, runtime: Runtime = Runtime()) -> None:  # noqa: B008 -- frozen
        self._job, self._runtime = job, runtime
        self._network = _Network(job, runtime)
        self._clock = Clock(is_fed=True)

    def __call__(
        self, pixels: Pixels, region: Region, work: SlideWork, bad: Bad, quality: Quality | None, reading: Effort
    ) -> Summary:
        """Classify one region; a failure becomes part of its summary."""
        with self._clock.region():
            here = partial(self._label, pixels, region, work, bad, quality)
            counts, failure = attempted(self._job, self._runtime, region, work, here, _label_alone)
        effort = self._clock.take()._replace(read_s=reading.read_s, bytes_read=reading.bytes_read)
        return Summary.of(region, work, counts, effort, failure)

    def _label(self, pixels: Pixels, region: Region, work: SlideWork, bad: Bad, quality: Quality | None) -> Counts:
        blocks = [(np.flatnonzero(~bad), pixels[~bad] if bad.any() else pixels)]
        probabilities, bad = self._network.classify(blocks, len(bad))
        return self._network.write(region, work, probabilities, bad, quality)


def _label_alone(job: LabelJob, runtime: Runtime, region: Region, work: SlideWork) -> Counts:
    return RegionLabeler(job, runtime)._label(region, work)  # noqa: SLF001 -- the same, in a process of its own


class _Network:
    """The network of a run, and what becomes of its probabilities."""

    def __init__(self, job: LabelJob, runtime: Runtime) -> None:
        self._job = job
        self._copies = ExitStack()
        model, openvino = here(self._copies, job.cache, job.model, runtime)
        on = runtime.device, runtime.threads, job.batch_size, job.precision, openvino
        self.predict = load_predictor(model, *on)
        if bundle_hash(model) != job.model_hash:
            raise HistoError(f"{job.model}: the bundle was changed while the run went on; label again")

    def classify(self, blocks: Iterable[Block], count: int) -> tuple[npt.NDArray[np.float32], Bad]:
        """Return probabilities `(tiles, classes)`, and which tiles could not be read, `(tiles,)`."""
        probabilities, bad = np.zeros((count, len(self._job.classes)), np.float32), np.ones(count, np.bool_)
        places: deque[Places] = deque()

        def batches() -> Iterator[Pixels]:
            for where, tiles in cut_batches(blocks, self.predict.batch_size):
                places.append(where)
                yield tiles

        for predicted in self.predict.over(batches()):
            where = places.popleft()
            probabilities[where] = predicted
            bad[where] = False
        return probabilities, bad

    def write(
        self,
        region: Region,
        work: SlideWork,
        probabilities: npt.NDArray[np.float32],
        bad: Bad,
        quality: Quality | None,
    ) -> Counts:
        """Write a region's rows as one part."""
        table = tile_tables.tile_table(self._job, region, work, probabilities, bad, quality)
        tile_tables.write_region(self._job, region, work, table)
        return tile_tables.count(table, self._job.classes)


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
