"""Gather the data of a training run: sources, subset, inspection, splits."""

from collections.abc import Sequence
from dataclasses import dataclass

from histo.errors import UsageError
from histo.learn.data.inspection import Inspection, check_broken, inspect_images, tile_mpp
from histo.learn.data.leaks import check_leaks
from histo.learn.data.listing import Split
from histo.learn.data.source import Source, read_sources, read_test, with_test
from histo.learn.data.split import assign_folds, assign_splits, fold_splits, number_units
from histo.learn.data.subset import draw_subset
from histo.learn.fit.history import History
from histo.learn.fit.shortages import absences, fold_shortages, shortages
from histo.pipelines.training.spec import CrossvalSpec, TrainSpec
from histo.pipelines.training.split_table import check_unchanged, read_folds, read_splits


@dataclass(frozen=True)
class _Cases:
    """The cases that a job learns from.

    Attributes:
        source: Cases and images.
        found: What a look at every image found.
        mpp: µm per pixel of what the network sees.
        notes: What a person should know of them, a line each.
    """

    source: Source
    found: Inspection
    mpp: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class TrainingData(_Cases):
    """The cases of a run.

    Attributes:
        splits: Of every case; None for images that cannot be used.
    """

    splits: tuple[Split | None, ...]

    def content_hashes(self, *parts: Split) -> list[str | None]:
        """Return the content hashes of the images of some parts."""
        pairs = zip(self.found.content_hashes, self.splits, strict=True)
        return [content for content, split in pairs if split in parts]


@dataclass(frozen=True)
class FoldedData(_Cases):
    """The cases of a cross-validation.

    Attributes:
        folds: Of every case; None for those that take no part.
    """

    folds: tuple[int | None, ...]

    def of_fold(self, fold: int, spec: TrainSpec) -> TrainingData:
        """Return the cases of the run that tests one fold; a run that goes on keeps its split.

        Raises:
            UsageError: If a class has too few of them.
        """
        begun = History(spec.out).last
        drawn = None if begun else fold_splits(self.source, self.found, self.folds, fold, spec.split, spec.seed)
        splits = drawn or read_splits(spec.out, self.source)
        absent = absences(self.source, splits, number_units(self.source, self.found), "val")
        return TrainingData(self.source, self.found, self.mpp, tuple(absent), splits)


def read_training_source(spec: TrainSpec) -> Source:
    """Read the cases of a run: the chosen subset of its data, and its test set."""
    source = read_sources(spec.data, spec.classes)
    if spec.test:
        source = with_test(source, read_test(spec.test, source, spec.classes))
    return source.select(draw_subset(source, spec.subset, spec.seed))


def gather(spec: TrainSpec, source: Source, history: History) -> TrainingData:
    """Look at every image, and split the cases; a run that goes on keeps its split.

    Raises:
        UsageError: If the data are bad, or not those that the run began with.
    """
    check_mpp(spec.mpp, source)
    kept = read_splits(spec.out, source) if history.last else None
    found = inspect_images(source)
    broken = check_broken(found, spec.max_broken, source.noun)
    mpp = tile_mpp(spec.mpps, source, found, spec.size_px)
    if kept is not None:
        check_unchanged(spec.out, source, found)
    splits = kept or assign_splits(source, found, spec.split, spec.seed)
    leaks = check_leaks(source, found, splits, spec.split.allow_leaks)
    short = shortages(source, splits, number_units(source, found), _drawn_fractions(spec, source))
    return TrainingData(source, found, mpp, (*broken, *leaks, *short), splits)


def _drawn_fractions(spec: TrainSpec, source: Source) -> dict[Split, float]:
    """Return the shares that are drawn from all cases; none where a source has splits of its own."""
    if any(case.split for case in source.cases):
        return {}
    return {"val": spec.split.val_fraction, "test": spec.split.test_fraction}


def check_mpp(mpps: Sequence[float] | None, source: Source) -> None:
    """Make sure that a resolution is given for tiles only.

    Raises:
        UsageError: If it is given for volumes.
    """
    if mpps and source.images.layout.task != "tiles":
        raise UsageError(f"--mpp: {source.images.layout} have none, they keep their own spacing; leave it out")


def gather_folds(spec: CrossvalSpec, source: Source, *, has_begun: bool) -> FoldedData:
    """Look at every image, and deal the cases into folds; a cross-validation that goes on keeps its folds.

    Raises:
        UsageError: If the data are bad, or not those that it began with.
    """
    check_mpp(spec.mpp, source)
    found = inspect_images(source)
    broken = check_broken(found, spec.max_broken, source.noun)
    mpp = tile_mpp(spec.mpp, source, found, spec.size_px)
    if has_begun:
        check_unchanged(spec.out, source, found)
    folds = read_folds(spec.out, source) if has_begun else assign_folds(source, found, spec.folds, spec.seed)
    apart = sum(case.split == "test" for case in source.cases)
    notes = [f"{apart} {source.noun} that the source sets apart for testing take no part"] if apart else []
    notes += fold_shortages(source, folds, number_units(source, found), spec.folds)
    return FoldedData(source, found, mpp, (*broken, *notes), folds)
