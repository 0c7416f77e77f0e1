"""The settings of a training run."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from histo.learn.data.spec import SplitSpec, Subset
from histo.learn.fit.augment_spec import AugmentSpec
from histo.learn.fit.phases import FitSpec
from histo.learn.network.spec import NetworkSpec
from histo.remote.location import AnyPath
from histo.run.placement import Device
from histo.spec.base import Spec, StoredPath, StoredPaths


def _as_list(value: object) -> object:
    return [value] if isinstance(value, int | float | str) else value


Resolutions = Annotated[list[Annotated[float, Field(gt=0)]], BeforeValidator(_as_list)]


def check_count(flag: str, mpps: Sequence[float] | None, sources: Sequence[AnyPath], of: str) -> None:
    """Make sure that there is one resolution for all sources of a flag, or one for each.

    Raises:
        ValueError: If not.
    """
    if mpps and len(mpps) not in (1, len(sources)):
        raise ValueError(f"{flag}: {len(mpps)} values for {len(sources)} sources of {of}; give one, or one for each")


class TrainingSpec(Spec):
    """What a training run and a cross-validation have in common."""

    COMMON: ClassVar[frozenset[str]] = frozenset(
        (
            *("classes", "mpp", "subset", "workers", "device", "resume", "start_from", "epoch"),
            *("network.backbone", "split.val_fraction", "augment.preset"),
            *("fit.batch_size", "fit.balance", "fit.precision", "fit.head.epochs"),
            *("fit.tune.epochs", "fit.tune.learning_rate"),
        )
    )

    data: StoredPaths
    """Labelled tiles, one or several sources: a folder of class folders, .npz, .csv, .parquet, a tile table; or
    prepared volumes."""
    out: StoredPath
    """Folder of the run."""
    subset: Subset = "full"
    """Part of the data that is used: full, tiny (100 a class), small (800), a share such as 0.1, or a count."""
    workers: int | None = Field(default=None, ge=1)
    """Training workers; default: one for each GPU, or 1 without GPUs."""
    device: Device = "auto"
    """Device to compute on; auto takes GPUs where there are some."""
    classes: list[str] | None = None
    """Class names: of the labels 0, 1, ... where they are numbers, or the classes to use; in this order."""
    mpp: Resolutions | None = None
    """Resolution of the images (µm/px), one for all sources or one for each; a bundle without it labels slides only
    with --tiling.mpp."""
    size_px: int = Field(default=224, ge=16, le=2**14)
    """Edge of the images that the network sees (px); others are resampled."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Fixes subset, split, order, augmentation and initial weights."""
    max_broken: float = Field(default=0.01, ge=0, le=1)
    """Share of images that cannot be used above which the run ends (0 to 1)."""
    loaders: int | None = Field(default=None, ge=0)
    """Processes that decode images, per worker; default: all its CPUs but one beside a GPU, else 0, in the worker."""
    resume: bool = False
    """Continue the run in OUT after its last finished epoch; begin it if there is none."""
    start_from: StoredPath | None = None
    """Run or bundle whose weights are the start instead of ImageNet's."""
    epoch: int | None = Field(default=None, ge=1)
    """Epoch of the run in --start-from; default: its best."""
    keep_checkpoints: int | None = Field(default=None, ge=1)
    """Number of last checkpoints to keep beside the best one; default: all, so that any epoch can be chosen."""
    max_failures: int = Field(default=3, ge=0)
    """Most times that the run goes on from its last epoch after a worker was lost."""
    network: NetworkSpec = NetworkSpec()
    split: SplitSpec = SplitSpec()
    augment: AugmentSpec = AugmentSpec()
    """Random changes of training images; a field that is left out is as the preset has it."""
    fit: FitSpec = FitSpec()

    @model_validator(mode="after")
    def _resolution_of_each_source(self) -> Self:
        check_count("--mpp", self.mpp, self.data, "--data")
        return self

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.epoch is not None and self.start_from is None:
            raise ValueError("--epoch says which epoch of --start-from is used; give that, too")
        if self.network.weights is not None and self.start_from is not None:
            raise ValueError("--network.weights and --start-from are two ways to begin; give one of them")
        if self.network.initial == "random" and (self.network.weights or self.start_from):
            raise ValueError(
                "--network.initial random: begins without --network.weights and --start-from; leave it out"
            )
        return self

    @property
    def most_epochs(self) -> int:
        """Epochs of a run that does not stop early."""
        return self.fit.head.epochs + self.fit.tune.epochs

    @property
    def weight_files(self) -> list[AnyPath]:
        """Files and folders that weights are read from."""
        return [path for path in (self.start_from, self.network.weights) if path]

    @property
    def caches_features(self) -> bool:
        """Whether the head phase sees unchanged images, so that the frozen backbone's features are computed once."""
        return not self.fit.head.augment or self.augment.settings().changes_nothing


class TrainSpec(TrainingSpec):
    """Fine-tune an ImageNet-pretrained network on labelled tiles; the result is a model bundle in OUT/model."""

    COMMON: ClassVar[frozenset[str]] = TrainingSpec.COMMON | {"test", "test_mpp", "split.test_fraction"}

    test: StoredPaths | None = None
    """Sources that are set apart: never trained on, scored once at the end."""
    test_mpp: Resolutions | None = None
    """Resolution of the images in --test (µm/px), one for all of them or one for each; default: the one of --mpp."""

    @model_validator(mode="after")
    def _resolution_of_each_test_source(self) -> Self:
        if self.test_mpp and not (self.test and self.mpp):
            raise ValueError("--test-mpp is of the images in --test, beside --mpp of those in --data; give both, too")
        check_count("--test-mpp", self.test_mpp, self.test or [], "--test")
        if self.test and self.test_mpp is None and len(self.mpp or [0]) > 1:
            raise ValueError("--mpp has several values; give that of the images in --test with --test-mpp")
        return self

    @property
    def mpps(self) -> list[float] | None:
        """Resolution of the images of each source (µm/px), those of --test behind those of --data; None if unknown."""
        if not self.mpp:
            return None
        each, tests = _each(self.mpp, self.data), self.test or []
        return each + _each(self.test_mpp or self.mpp[:1], tests)


def _each(values: list[float], sources: Sequence[AnyPath]) -> list[float]:
    return values if len(values) == len(sources) else values * len(sources)


class CrossvalSpec(TrainingSpec):
    """Cross-validate: train once for each fold of labelled tiles, and predict each with the run that did not see it."""

    COMMON: ClassVar[frozenset[str]] = TrainingSpec.COMMON | {"folds"}

    workers: int | None = Field(default=None, ge=1)
    """Training workers of each fold; default: 1."""
    folds: int = Field(default=5, ge=2)
    """Parts into which the cases are dealt, by class; a group (a patient), or equal images, into the same."""
    side_by_side: int | None = Field(default=None, ge=1)
    """Folds that are trained at a time; default: as many as there is room for."""

    @model_validator(mode="after")
    def _no_other_test_set(self) -> Self:
        if self.split.test_fraction:
            raise ValueError("--split.test-fraction: each fold is tested once; leave this out")
        return self

    def of_fold(self, fold: int, workers: int) -> TrainSpec:
        """Return the settings of one fold's training run."""
        shared = self.model_dump(exclude={"folds", "side_by_side"})
        return TrainSpec.model_validate(shared | {"out": self.out / f"fold_{fold}", "workers": workers})


FREE_TO_CHANGE = frozenset(
    (
        *("out", "resume", "workers", "device", "loaders", "keep_checkpoints", "max_failures", "side_by_side"),
        "fit.validation_steps",
    )
)
"""Fields that do not change the result, so that a run may be resumed with others."""
