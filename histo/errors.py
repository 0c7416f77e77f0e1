"""Every error that histo raises on purpose.

A `HistoError` means that the data or the settings are bad and that a person can act: its message says where, what,
and the way out, in one line. A `ValueError` is a caller's mistake, an `AssertionError` a mistake of ours.
"""

from enum import StrEnum


class HistoError(Exception):
    """The data or the settings are bad; the message says what to do. The command line exits with `exit_code`."""

    exit_code = 1


class UsageError(HistoError):
    """A wrong flag, file, folder or bundle, found before any work starts."""

    exit_code = 2


class Cause(StrEnum):
    """Why a slide or a study is not usable, the ledger's `error_code`."""

    NOT_A_SLIDE = "not_a_slide"
    NO_MPP = "no_mpp"
    IMPLAUSIBLE_MPP = "implausible_mpp"
    TOO_COARSE = "too_coarse"
    UNREADABLE = "unreadable"
    BAD_TILES = "bad_tiles"
    TOO_MANY_TILES = "too_many_tiles"
    MASK_TOO_LARGE = "mask_too_large"
    NOT_BRIGHTFIELD = "not_brightfield"
    BAD_ANNOTATION = "bad_annotation"
    NO_IMAGES = "no_images"
    MISSING_SERIES = "missing_series"
    AMBIGUOUS_SERIES = "ambiguous_series"
    ONE_SLICE = "one_slice"
    UNEVEN_SPACING = "uneven_spacing"
    GANTRY_TILT = "gantry_tilt"
    MIXED_SIZES = "mixed_sizes"
    MIXED_SLICES = "mixed_slices"
    MIXED_IDENTITY = "mixed_identity"
    NO_ORIENTATION = "no_orientation"
    BAD_GEOMETRY = "bad_geometry"
    NOT_FINITE = "not_finite"
    OVERFLOW = "overflow"
    NO_DECODER = "no_decoder"
    TOO_LARGE = "too_large"
    CRASH = "crash"
    NO_ACCESS = "no_access"
    CHANGED = "changed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_LOST = "worker_lost"
    STORAGE = "storage"
    INTERNAL = "internal"

    @property
    def transient(self) -> bool:
        """Whether it may be gone the next time, so that the same command tries again without being asked to."""
        return self in _TRANSIENT


_TRANSIENT = frozenset(
    (
        Cause.NO_ACCESS,
        Cause.CHANGED,
        Cause.TIMEOUT,
        Cause.OUT_OF_MEMORY,
        Cause.WORKER_LOST,
        Cause.STORAGE,
        Cause.INTERNAL,
    )
)


class InputError(HistoError):
    """One slide or study cannot be used. It becomes a ledger row and stops nothing else."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause

    def __reduce__(self) -> tuple[type["InputError"], tuple[Cause, str]]:
        """Pickle with both arguments, so that a Ray task can raise it."""
        return type(self), (self.cause, str(self))


class SlideError(InputError):
    """One slide cannot be used."""


class StudyError(InputError):
    """One study cannot be used.

    Attributes:
        of_bundle: The message where a bundle says how studies are prepared, and no setting is a way out.
    """

    def __init__(self, cause: Cause, message: str, of_bundle: str | None = None) -> None:
        super().__init__(cause, message)
        self.of_bundle = of_bundle or message

    def __reduce__(self) -> tuple[type["StudyError"], tuple[Cause, str, str]]:  # type: ignore[override]
        """Pickle with all arguments."""
        return type(self), (self.cause, str(self), self.of_bundle)


class ReadError(HistoError):
    """Pixels of an open slide cannot be read; other places of the same slide may be fine."""


class ImageError(HistoError):
    """One labelled image cannot be used; its message names the image and says why. Others may be fine."""
