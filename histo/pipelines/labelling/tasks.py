"""Settings of a label run for its workers, and the messages between them."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from histo.errors import InputError
from histo.input_files import all_blocks, digest
from histo.learn.network.spec import InferencePrecision
from histo.pipelines.labelling.work_clock import NOTHING, Effort
from histo.remote.cache import Cache
from histo.remote.location import AnyPath
from histo.remote.objects import RemoteState
from histo.run.ledger import fingerprint_of
from histo.slides.grid import Grid, Region
from histo.slides.resolution import Sampling
from histo.slides.slide import Slide
from histo.slides.spec import ReaderChoice
from histo.tables import SCHEMA_VERSION, Row

ALGORITHM_VERSION = 4
"""Raised whenever the same slide, settings and bundle would give other rows."""
_OF_THE_NETWORK = ("model", "precision")


@dataclass(frozen=True)
class LabelJob:
    """What is the same for every slide of a run.

    Attributes:
        out: Output folder.
        model: Bundle folder.
        model_hash: sha256 of the bundle, its document and its weights.
        weights_sha256: sha256 of the weights' file alone.
        classes: Names, in order.
        size_px: Edge of a tile, target pixels.
        stride_px: Distance of tile origins, target pixels.
        mpp: Requested resolution, µm per target pixel.
        tiling: Settings of the grid, as a JSON document.
        tissue: Settings of the mask, as a JSON document.
        mpp_if_missing: µm per level-0 pixel for slides that name none.
        max_failed_fraction: Share of unreadable tiles above which a slide is `failed`.
        read_timeout_s: Seconds without a read after which a worker is ended.
        verify: Whether slide files are hashed whole.
        reader: What decodes the slides, as requested.
        precision: Arithmetic of the network.
        agreement: How far that agrees with float32, as a JSON document; None for float32 itself.
        batch_size: Tiles per forward pass; None leaves it to the device.
        versions: Of the packages, for the files' footers.
        mpp_override: µm per level-0 pixel of every slide, whatever it names.
        masked: Whether masks from elsewhere are asked for.
        quality: Whether the quality of tiles is measured.
        cache: Copies of remote slides on each node.
    """

    out: AnyPath
    model: AnyPath
    model_hash: str
    weights_sha256: str
    classes: tuple[str, ...]
    size_px: int
    stride_px: int
    mpp: float
    tiling: dict[str, Any]
    tissue: dict[str, Any]
    mpp_if_missing: float | None
    max_failed_fraction: float
    read_timeout_s: float
    verify: bool
    reader: ReaderChoice
    precision: InferencePrecision
    agreement: dict[str, Any] | None
    batch_size: int | None
    versions: dict[str, str]
    mpp_override: float | None = None
    masked: bool = False
    quality: bool = False
    cache: Cache = field(default_factory=Cache)

    def tolerates(self, n_ok: int, n_failed: int) -> bool:
        """Whether a slide with so many readable and unreadable tiles still has a result."""
        return n_failed == 0 or (n_ok > 0 and n_failed <= self.max_failed_fraction * (n_ok + n_failed))

    def fingerprint(self, content_id: str, mpp_x: float, mpp_y: float, mask: str | None = None) -> str:
        """Return the sha256 of everything that the rows of a slide depend on; not of workers, batches or Ray.

        Args:
            content_id: Of the slide's files.
            mpp_x: µm per level-0 pixel along x.
            mpp_y: Likewise along y.
            mask: See `mask_id`.
        """
        content = {"content_id": content_id, "mpp": [mpp_x, mpp_y]} | _of_mask(mask)
        return fingerprint_of(self._settings() | content)

    def plan_fingerprint(self, content_id: str, mpp_x: float, mpp_y: float, mask: str | None = None) -> str:
        """Return the sha256 of everything that the tiles of a slide depend on; not of the bundle. See `fingerprint`."""
        settings = {name: value for name, value in self._settings().items() if name not in _OF_THE_NETWORK}
        return fingerprint_of(settings | {"content_id": content_id, "mpp": [mpp_x, mpp_y]} | _of_mask(mask))

    def failure_fingerprint(
        self, size_bytes: int | None, mtime_ns: int | None, mask: str | None = None, mpp: float | None = None
    ) -> str:
        """Return the sha256 of everything that the failure of a slide may depend on, itself apart.

        Args:
            size_bytes: Of its files.
            mtime_ns: Of their latest change.
            mask: See `mask_id`.
            mpp: µm per level-0 pixel, if a list says so.
        """
        limits = {"mpp_if_missing": self.mpp_if_missing, "max_failed_fraction": self.max_failed_fraction}
        limits |= {} if self.mpp_override is None else {"mpp_override": self.mpp_override}
        limits |= {} if mpp is None else {"mpp": mpp}
        return fingerprint_of(self._settings() | limits | {"file": [size_bytes, mtime_ns]} | _of_mask(mask))

    def _settings(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA_VERSION,
            "algorithm": ALGORITHM_VERSION,
            "model": self.model_hash,
            "tiling": self.tiling | {"mpp": self.mpp, "size_px": self.size_px, "stride_px": self.stride_px},
            "tissue": self.tissue,
            "precision": self.precision,
            "reader": self.reader,
        }


def _of_mask(mask: str | None) -> dict[str, str]:
    return {} if mask is None else {"mask": mask}


def mask_id(mask: str | None) -> str | None:
    """Return the sha256 of the whole file of a slide's mask; empty if there is none, or none any more.

    Args:
        mask: The file; empty if the slide has none; None if masks from elsewhere are not asked for.
    """
    if not mask:
        return mask
    try:
        return digest(all_blocks([mask]))
    except InputError:
        return ""


@dataclass(frozen=True)
class SlideTask:
    """A slide that is to be labelled.

    Attributes:
        slide_id: Path of the slide below the collection's folder.
        files: Paths of its files, the one to open first.
        again: Whether to label it even if its table is up to date.
        content_id: Of its files, as an earlier run knew it; empty if none did.
        sha256: Of its whole files, likewise.
        mask: File of its tissue mask, empty if it has none; None if masks from elsewhere are not asked for.
        mpp: µm per level-0 pixel, if a list says so.
    """

    slide_id: str
    files: tuple[str, ...]
    again: bool = False
    content_id: str = ""
    sha256: str = ""
    mask: str | None = None
    mpp: float | None = None


@dataclass(frozen=True)
class SlideWork:
    """What a worker needs to read the regions of one slide.

    Attributes:
        slide_id: Its name.
        files: All its files; URIs of remote ones.
        state: Their size and latest change, when it was planned; see `input_files.file_state`.
        slide: Its description.
        sampling: Which level is read, and how it is reduced.
        grid: All tiles.
        n_regions: Number of its regions.
        fingerprint: Of the slide's result.
        columns: What planning knows of the slide for the ledger; it goes into the footer of the slide's table.
        states: What the remote files are.
    """

    slide_id: str
    files: tuple[str, ...]
    state: tuple[int, int]
    slide: Slide
    sampling: Sampling
    grid: Grid
    n_regions: int
    fingerprint: str
    columns: Row
    states: tuple[RemoteState, ...] = ()


class RegionTask(NamedTuple):
    """What a `RegionLabeler` is called with: a region of a slide."""

    region: Region
    work: SlideWork


class Counts(NamedTuple):
    """Tiles with a prediction, tiles that could not be read, and the former by class.

    Attributes:
        is_kept: Whether an earlier attempt has made them.
    """

    n_ok: int
    n_failed: int
    classes: list[int]
    is_kept: bool = False


@dataclass(frozen=True)
class Summary:
    """What became of one region, or of a slide of which no tile is to be read.

    Attributes:
        slide_id: The slide.
        columns: What planning knows of it for the ledger.
        n_regions: Number of its regions; 0 if no tile of it is to be read.
        region: Name of the region.
        counts: Its tiles; None if it failed.
        effort: What it took.
        failure: The ledger's error columns, or None.
    """

    slide_id: str
    columns: Row
    n_regions: int = 0
    region: str = ""
    counts: Counts | None = None
    effort: Effort = NOTHING
    failure: Row | None = None

    @classmethod
    def of(
        cls, region: Region, work: SlideWork, counts: Counts | None, effort: Effort, failure: Row | None = None
    ) -> Self:
        """Return the summary of a region that was done, or has failed."""
        return cls(work.slide_id, work.columns, work.n_regions, region.name, counts, effort, failure)

    @property
    def unit(self) -> str:
        """See `run.stream.worker.Answer`."""
        return self.slide_id

    @property
    def error_code(self) -> str | None:
        """See `run.stream.worker.Answer`."""
        return (self.failure or self.columns).get("error_code")
