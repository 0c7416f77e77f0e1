"""Read the tiles of a region, by threads, a few blocks ahead."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from histo.errors import Cause, InputError, SlideError
from histo.input_files import digest, file_state, sampled_blocks
from histo.pipelines.labelling import tile_tables
from histo.pipelines.labelling.runtime import Runtime
from histo.pipelines.labelling.tasks import Counts, LabelJob, SlideWork, Summary
from histo.pipelines.labelling.work_clock import Clock
from histo.remote.location import scheme
from histo.resample import Pixels
from histo.run.failure import describe_failure
from histo.run.isolation import Watchdog, guarded
from histo.run.stream.worker import Handed
from histo.slides.grid import Indices, Region
from histo.slides.open_readers import Readers
from histo.slides.quality import measure_quality
from histo.slides.tiles import cut_blocks, read_tiles
from histo.tables import Row

T = TypeVar("T")

Places = Indices
"""Which of a region's tiles, `(n,)`."""
Block = tuple[Places, Pixels]
"""Tiles that were read together: their places, and their pixels `(n, size_px, size_px, 3)`."""
Bad = npt.NDArray[np.bool_]
"""Which of a region's tiles could not be read, `(tiles,)`."""
Quality = npt.NDArray[np.float32]
"""Focus and ink of a region's tiles, NaN where there is none, `(tiles, 2)`."""


class RegionReader:
    """Reads regions, and keeps their slides open.

    Where readers are apart from the network, it is a worker of its own: called with a region, it hands its pixels over
    to a `TileClassifier`, or answers if they are not needed.
    """

    def __init__(self, job: LabelJob, runtime: Runtime = Runtime(), clock: Clock | None = None) -> None:  # noqa: B008 -- frozen
        self._job, self._runtime = job, runtime
        self._threads = ThreadPoolExecutor(runtime.threads, thread_name_prefix="read")
        self._watchdog = Watchdog(job.read_timeout_s)
        self._readers = Readers()
        self._clock = clock or Clock()
        self._finished: tuple[tuple[str, str], pa.Table | None] = ("", ""), None

    def __call__(self, region: Region, work: SlideWork) -> Handed | Summary:
        """Read one region; a failure becomes a summary."""
        here = partial(self._read_whole, region, work)
        read, failure = attempted(self._job, self._runtime, region, work, here, _read_alone)
        effort = self._clock.take()
        if read is None or isinstance(read, Counts):
            return Summary.of(region, work, read, effort, failure)
        pixels, bad, quality = read
        return Handed((region, work, bad, quality, effort), pixels)

    @contextmanager
    def here(self, work: SlideWork) -> Iterator[SlideWork]:
        """Have the files of a slide on this node; what cannot be read of a copy that is damaged is not its fault."""
        with ExitStack() as stack:
            with self._clock.fetching():
                copies = stack.enter_context(self._job.cache.local(work.files, work.states))
            if not copies.are_copies:
                yield work
                return
            copies.mark(ahead=False)
            copied = replace(work, files=copies.files, slide=replace(work.slide, path=copies.files[0]))
            try:
                yield copied
            except Exception as error:
                if (lost := trouble(copied)) is not None:
                    raise lost from error
                raise
            finally:
                self._readers = Readers()  # those before hold files open, of which copies may be removed

    def completed(self, region: Region, work: SlideWork) -> Counts | None:
        """Complete rows of a table that lacks their quality: it is measured, and added to the rows as they are."""
        if (quality := self.unmeasured(region)) is None or (rows := self._known(region, work)) is None:
            return None
        bad = np.ones(len(quality), np.bool_)
        for places, _ in self.blocks(region, work, quality):
            bad[places] = False
        check_unchanged(work, bad)
        table = tile_tables.with_quality(rows, quality)
        tile_tables.write_region(self._job, region, work, table)
        return tile_tables.count(table, self._job.classes)

    def unmeasured(self, region: Region) -> Quality | None:
        """Return room for the quality of a region's tiles, if it is asked for."""
        return np.full((len(region.tile_index), 2), np.nan, np.float32) if self._job.quality else None

    def blocks(self, region: Region, work: SlideWork, quality: Quality | None) -> Iterator[Block]:
        """Yield the readable tiles, block by block, while threads read the blocks after; memory holds a few of them.

        Args:
            region: The region.
            work: Of which slide, and how it is read.
            quality: Is filled with the quality of those that were yielded, if given.
        """
        return self._watchdog.each(self._read_ahead(region, work, quality))

    def _known(self, region: Region, work: SlideWork) -> pa.Table | None:
        """Return the rows of a region in the table of its slide, which is read once for all of its regions."""
        slide = work.slide_id, work.fingerprint  # copies of a slide have one fingerprint
        if self._finished[0] != slide:
            self._finished = slide, tile_tables.finished_table(self._job, *slide)
        table = self._finished[1]
        return None if table is None else tile_tables.known_rows(region, table)

    def _read_whole(self, region: Region, work: SlideWork) -> Counts | tuple[Pixels, Bad, Quality | None]:
        """Return a region's pixels, `(tiles, size_px, size_px, 3)`, or what an earlier attempt has made of them."""
        if (kept := tile_tables.kept_counts(self._job, region, work)) is not None:
            return kept
        with self.here(work) as here:
            return self._read_here(region, here)

    def _read_here(self, region: Region, work: SlideWork) -> Counts | tuple[Pixels, Bad, Quality | None]:
        if (kept := self.completed(region, work)) is not None:
            return kept
        count, size, quality = len(region.tile_index), self._job.size_px, self.unmeasured(region)
        pixels, bad = np.zeros((count, size, size, 3), np.uint8), np.ones(count, np.bool_)
        for places, tiles in self.blocks(region, work, quality):
            pixels[places] = tiles
            bad[places] = False
        check_unchanged(work, bad)
        return pixels, bad, quality

    def _read_ahead(self, region: Region, work: SlideWork, quality: Quality | None) -> Iterator[Block]:
        waiting: deque[tuple[Places, Future[tuple[Pixels, Bad]]]] = deque()

        def first() -> Block:
            places, read = waiting.popleft()
            tiles, bad = read.result()
            return (places[~bad], tiles[~bad]) if bad.any() else (places, tiles)

        for places in cut_blocks(work.grid, region.tile_index):
            measured = None if quality is None else (quality, places)
            read = self._threads.submit(self._read, region.tile_index[places], work, measured)
            waiting.append((places, read))
            if len(waiting) > self._runtime.threads:
                yield first()
        while waiting:
            yield first()

    def _read(
        self, tile_index: Indices, work: SlideWork, measured: tuple[Quality, Places] | None
    ) -> tuple[Pixels, Bad]:
        """Read tiles, and measure their quality into its places if that is asked for."""
        with self._clock.reading():
            reader = self._readers.get(work.slide, work.columns["reader"])
            tiles, bad = read_tiles(reader, work.slide, work.sampling, work.grid, tile_index)
        if measured is not None:
            quality, places = measured
            quality[places[~bad]] = measure_quality(tiles[~bad], work.sampling.effective_mpp_x)
        return tiles, bad


def _read_alone(
    job: LabelJob, runtime: Runtime, region: Region, work: SlideWork
) -> Counts | tuple[Pixels, Bad, Quality | None]:
    return RegionReader(job, runtime)._read_whole(region, work)  # noqa: SLF001 -- the same, in a process of its own


def attempted(
    job: LabelJob, runtime: Runtime, region: Region, work: SlideWork, here: Callable[[], T], alone: Callable[..., T]
) -> tuple[T | None, Row | None]:
    """Do a region's work, here or in a process of its own; returns its result, or the columns of its failure.

    Raises:
        FloatingPointError: It is the bundle's fault, not the slide's: the run ends.
    """
    try:
        return guarded(job, work.slide_id, region.name, here, alone, runtime, region, work), None
    except FloatingPointError:
        raise
    except Exception as error:  # noqa: BLE001 -- a region is the other boundary
        failure = describe_failure(trouble(work) or error, f"{work.slide_id}, region {region.name}")
        return None, {
            name: job.cache.named(text, work.files, work.states) if text else text for name, text in failure.items()
        }


def check_unchanged(work: SlideWork, bad: Bad) -> None:
    """Make sure that a slide's files are still those that were planned, once a region of it is read.

    Raises:
        InputError: If they are not: its tiles would be of two slides, or of none.
    """
    if (error := trouble(work, look_inside=bool(bad.any()))) is not None:
        raise error


def trouble(work: SlideWork, look_inside: bool = True) -> InputError | None:
    """Say so if a slide's files are not those that were planned.

    Where something could not be decoded, the files are also read without a decoder (`look_inside`), since a lost drive
    must not be taken for a damaged slide. Remote files are looked at when they are fetched.
    """
    if scheme(work.files[0]) is not None:
        return None
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
