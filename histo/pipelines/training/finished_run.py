"""Training run of a bundle: the images that it learned from and held out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from histo.errors import UsageError
from histo.learn.bundle import Bundle, find_bundle, read_bundle
from histo.learn.data.inspection import Inspection, inspect_images
from histo.learn.data.listing import Split
from histo.learn.data.source import Source
from histo.learn.data.split import split_hash
from histo.pipelines.training.data import read_training_source
from histo.pipelines.training.spec import TrainSpec
from histo.pipelines.training.split_table import FILE, check_unchanged, has_columns, read_columns, read_splits
from histo.remote.cache import held
from histo.remote.location import AnyPath, at
from histo.run.record import FILE as RECORD
from histo.run.record import read_record
from histo.store import is_there


@dataclass(frozen=True)
class FinishedRun:
    """The training run of a bundle, which is still there; it may go on.

    Attributes:
        folder: Its folder.
    """

    folder: AnyPath

    @cached_property
    def spec(self) -> TrainSpec:
        """Its settings."""
        try:
            return TrainSpec.model_validate(read_record(self.folder)["spec"])
        except ValidationError as error:
            names = ", ".join(".".join(map(str, found["loc"])) for found in error.errors())
            raise UsageError(
                f"{self.folder / RECORD}: has settings that histo does not know ({names}); use the version of then"
            ) from None

    @cached_property
    def _cases(self) -> tuple[Source, Inspection, tuple[Split | None, ...]]:
        """All its cases, their inspection and their splits, if all images are still what they were."""
        try:
            source = read_training_source(self.spec)
            splits = read_splits(self.folder, source)
            found = inspect_images(source)
            check_unchanged(self.folder, source, found)
        except UsageError as error:
            raise UsageError(f"{self.folder}: the images of this run cannot be had: {error}") from None
        return source, found, splits

    def part(self, split: Split) -> tuple[Source, str]:
        """Return the cases of a part, and their data fingerprint.

        Raises:
            UsageError: If the run has no such cases, or its images are gone or others.
        """
        source, found, splits = self._cases
        members = [i for i, name in enumerate(splits) if name == split]
        if not members:
            raise UsageError(f"{self.folder}: this run has no {split} images; give --data, or another --part")
        chosen = source.select(members)
        return chosen, found.select(members).fingerprint(chosen)

    def content_hashes(self, *splits: Split) -> list[str]:
        """Return the content hashes of the images of some parts."""
        table = read_columns(self.folder, "split", "content_hash")
        pairs = zip(table["split"], table["content_hash"], strict=True)
        return [content for split, content in pairs if split in splits]

    def learned_from(self, *splits: Split) -> set[str]:
        """Return the content hashes of the images of some parts, of this run and of those that it started from.

        An earlier run counts as far as it is still there; it may have been removed, or its checkpoint, since.
        """
        learned = set(self.content_hashes(*splits))
        start = self.spec.start_from
        if start is None:
            return learned
        try:
            earlier = find_run(start, read_bundle(held(find_bundle(start, self.spec.epoch, "--start-from"))))
        except UsageError:
            return learned
        return learned | (earlier.learned_from(*splits) if earlier else set())

    def count_seen(self, content_hashes: Sequence[str | None]) -> int:
        """Count the images, by their content, that the bundle was trained on, or that chose an epoch of it."""
        seen = self.learned_from("train", "val")
        return sum(content in seen for content in content_hashes)


def find_run(model: AnyPath, bundle: Bundle) -> FinishedRun | None:
    """Find the run of a bundle: the folder that was given, one above it, or where the bundle says that it was made.

    A run counts only if its split is the one that the bundle was trained with.
    """
    places = [model, model.parent, model.parent.parent, at(str(bundle.origin.get("run", model)))]
    return next((FinishedRun(place) for place in places if _is_run_of(place, bundle)), None)


def _is_run_of(place: AnyPath, bundle: Bundle) -> bool:
    if not _has_table(place):
        return False
    if not has_columns(place, "case_id", "split"):  # that of a cross-validation
        return False
    table = read_columns(place, "case_id", "split")
    return split_hash(table["case_id"], table["split"]) == bundle.origin.get("split_sha256")


def _has_table(place: AnyPath) -> bool:
    if isinstance(place, Path):
        return os.path.isfile(place / FILE)  # noqa: PTH113 -- also where a bundle names what can be no path
    try:
        return is_there(place / FILE)
    except OSError:  # storage of another cluster
        return False
