"""Model bundle: a folder with all that is needed to use a model. No torch.

`model.safetensors` holds the tensors, `model.json` what they mean. No pickle. Loading checks the hash of the weights
and that the classes fit them.
"""

import functools
import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, overload

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from safetensors import SafetensorError, safe_open

from histo.class_names import MOST_LETTERS, is_name
from histo.errors import UsageError
from histo.learn.array_layout import TILES, Layout, Task, TileLayout, VolumeLayout
from histo.learn.epoch_index import read_index
from histo.regular_file import WEIGHTS_BYTES, open_regular, read_regular
from histo.remote.location import AnyPath
from histo.store import is_there

MODEL_JSON = "model.json"
WEIGHTS = "model.safetensors"
HEAD_WEIGHT = "head.linear.weight"
BACKBONE_NAME = r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_.\-]{1,100})?"
"""A plain name, with the tag of its weights or without; others lead timm to a hub, or to a folder."""


_MOST_VALUES = 2**31
"""Of one array that a network sees."""


def _check_class(name: str) -> str:
    if not is_name(name):
        raise ValueError(f"a class needs a name of printable characters, not {name!a}")
    return name


ClassName = Annotated[str, Field(max_length=MOST_LETTERS), AfterValidator(_check_class)]
Mean = Annotated[float, Field(ge=0, le=255)]
Deviation = Annotated[float, Field(ge=0.1, le=1000)]
Edge = Annotated[int, Field(ge=1, le=2**14)]
"""Of a tile or a slice, px."""


class _Record(BaseModel):
    """A part of `model.json`; unlike a `Spec`, made by code and read back strictly."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Architecture(_Record):
    """Which network the weights belong to."""

    backbone: str = Field(pattern=f"^{BACKBONE_NAME}$")
    """timm's model name, or one of `histo.learn.network.volume_networks`."""
    head: Literal["gap-bn-dropout-linear"] = "gap-bn-dropout-linear"
    dropout: float = Field(default=0.2, ge=0, lt=1)
    input_channels: int = Field(default=3, ge=1)


class TileInput(_Record):
    """What the network sees."""

    size_px: Edge
    mpp: Annotated[float, Field(ge=0.01, le=1000)] | None
    """µm per pixel of a tile; null if the training source's resolution is unknown."""
    mean: tuple[Mean, Mean, Mean]
    """Subtracted from the pixels, which run from 0 to 255."""
    std: tuple[Deviation, Deviation, Deviation]
    """The difference is divided by it."""
    kernel: Literal["box"] = "box"
    """How pixels of another resolution are averaged, see `histo.resample`."""

    @property
    def layout(self) -> TileLayout:
        """How a tile is laid out as an array."""
        return TILES


class VolumeInput(_Record):
    """What a network that classifies studies sees."""

    series: int = Field(gt=0, le=1000)
    slices: int = Field(gt=0, le=10_000)
    """Of each series."""
    size_px: Edge
    """Edge of a slice."""
    mean: tuple[Mean]
    """Subtracted from the voxels, which run from 0 to 255."""
    std: tuple[Deviation]
    """The difference is divided by it."""
    preparation: dict[str, Any] | None
    """How a volume is made of a study; null if that is unknown, and studies cannot be labelled."""
    kernel: Literal["box"] = "box"
    """How slices of another size are averaged, see `histo.resample`."""

    @property
    def layout(self) -> VolumeLayout:
        """How a volume is laid out as an array."""
        return VolumeLayout(self.series, self.slices, self.preparation)


def _task_of(document: Any) -> Task:
    """Tell by its fields what an input describes, so that errors are those of that."""
    of_volumes = "series" in document if isinstance(document, dict) else isinstance(document, VolumeInput)
    return "volumes" if of_volumes else "tiles"


class Bundle(_Record):
    """The content of `model.json`."""

    schema_version: Literal[1] = 1
    task: Task = "tiles"
    architecture: Architecture
    classes: tuple[ClassName, ...]
    """Names in the order of the network's outputs."""
    input: Annotated[
        Annotated[TileInput, Tag("tiles")] | Annotated[VolumeInput, Tag("volumes")], Discriminator(_task_of)
    ]
    temperature: float = Field(default=1.0, ge=0.001, le=1000)
    """Logits are divided by it before the softmax (Guo et al. 2017, arXiv 1706.04599)."""
    origin: dict[str, Any]
    """Where it came from: data fingerprint, split hash, run, versions, metrics."""
    weights_sha256: str

    @model_validator(mode="after")
    def _classes_are_unique(self) -> "Bundle":
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise ValueError(f"classes must be two or more different names, not {list(self.classes)}")
        return self

    @model_validator(mode="after")
    def _input_is_of_the_task(self) -> "Bundle":
        if self.input.layout.task != self.task:
            raise ValueError(f"input describes {self.input.layout.task}, not {self.task}")
        return self

    @model_validator(mode="after")
    def _arrays_can_be_held(self) -> "Bundle":
        if math.prod(self.array_shape) > _MOST_VALUES:
            raise ValueError(f"arrays of {self.array_shape} have more than {_MOST_VALUES} values")
        return self

    @property
    def array_shape(self) -> tuple[int, ...]:
        """The shape of one array that the network sees: `(size_px, size_px, 3)`, or `(S, D, size_px, size_px)`."""
        return self.input.layout.shape(self.input.size_px)


@overload
def find_bundle(path: Path, epoch: int | None = None, flag: str = "--model") -> Path: ...


@overload
def find_bundle(path: AnyPath, epoch: int | None = None, flag: str = "--model") -> AnyPath: ...


def find_bundle(path: AnyPath, epoch: int | None = None, flag: str = "--model") -> AnyPath:
    """Return the folder of the bundle that a path means.

    Args:
        path: A bundle, or a training run.
        epoch: Which epoch of the run; None means its best bundle.
        flag: Where the path is from, for messages.

    Raises:
        UsageError: If there is none yet, or the checkpoint of that epoch was not kept.
    """
    if epoch is None:
        return _find_best(path, flag)
    index = read_index(path)
    kept = index.kept if index else []
    if epoch not in kept:
        names = ", ".join(map(str, kept)) or "none"
        raise UsageError(f"{flag} {path} --epoch {epoch}: no checkpoint of that epoch there; kept are: {names}")
    return path / "checkpoints" / f"epoch_{epoch:04d}"


def _find_best(path: AnyPath, flag: str) -> AnyPath:
    """Return the best bundle of a run; what is no run is taken as a bundle.

    Raises:
        UsageError: If the run has not ended, and has none yet.
    """
    if is_there(path / "model" / MODEL_JSON):
        return path / "model"
    index = None if is_there(path / MODEL_JSON) else read_index(path)
    if index is None:
        return path
    kept = f", or give {path / 'checkpoints' / f'epoch_{index.kept[-1]:04d}'}" if index.kept else ""
    raise UsageError(
        f"{flag} {path}: a training run that has not ended ({index.last} epochs have); go on with "
        f"`histo train --resume`{kept}"
    )


@contextmanager
def described(where: str, way_out: str) -> Iterator[None]:
    """Turn what pydantic says of a document into an error of one line.

    Args:
        where: What messages call the document.
        way_out: What they end with.

    Raises:
        UsageError: If the document is not valid.
    """
    try:
        yield
    except ValidationError as error:
        detail = error.errors()[0]
        found = detail["input"]
        value = f", not {ascii(found)[:60]}" if isinstance(found, str | int | float) and detail["loc"] else ""
        place = ".".join(ascii(part).strip("'") for part in detail["loc"]) or "document"
        raise UsageError(f"{where}: {place}: {' '.join(detail['msg'].split())}{value}; {way_out}") from None


def read_bundle(folder: Path, flag: str = "--model") -> Bundle:
    """Read and check a bundle, weights' hash and shape of the head included.

    Args:
        folder: The bundle.
        flag: Where its path is from, for messages.

    Raises:
        UsageError: If something is missing, damaged, or does not fit together; the message names it.
    """
    if not folder.is_dir():
        what = "is a file; give its folder, or that of the run" if folder.exists() else "no such folder"
        raise UsageError(f"{flag} {folder}: {what}")
    for name in (MODEL_JSON, WEIGHTS):
        if not (folder / name).is_file():
            raise UsageError(f"{flag} {folder}: not a model bundle, {name} is missing")
    path = folder / MODEL_JSON
    try:
        document = read_regular(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; copy the bundle again") from None
    with described(str(path), "the bundle is damaged or was edited, copy it again"):
        bundle = Bundle.model_validate_json(document)
    _check_weights(folder, bundle, flag)
    return bundle


def _check_weights(folder: Path, bundle: Bundle, flag: str) -> None:
    path = folder / WEIGHTS
    try:
        found = hash_file(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; copy the bundle again") from None
    if found != bundle.weights_sha256:
        raise UsageError(
            f"{path}: sha256 is {found[:12]}…, {MODEL_JSON} says {bundle.weights_sha256[:12]}…; the bundle is damaged "
            "or was edited, copy it again"
        )
    try:
        with safe_open(path, framework="numpy") as tensors:
            outputs, *others = tensors.get_slice(HEAD_WEIGHT).get_shape() or [0]
    except (SafetensorError, FileNotFoundError) as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())}; these are not the weights of a bundle") from None
    if len(others) != 1 or outputs != len(bundle.classes):
        named = len(bundle.classes)
        raise UsageError(f"{flag} {folder}: the weights have {outputs} outputs, but {MODEL_JSON} names {named} classes")


def check_layout(bundle: Bundle, layout: Layout, where: str) -> None:
    """Make sure that a bundle sees what is given to it.

    Args:
        bundle: The bundle.
        layout: Of what is given.
        where: What messages call the bundle.

    Raises:
        UsageError: If it sees something else, or studies that were prepared in another way.
    """
    seen = bundle.input.layout
    if str(seen) != str(layout):
        raise UsageError(f"{where}: sees {seen}, and the data are {layout}; give other data, or another bundle")
    if seen != layout:
        raise UsageError(
            f"{where}: sees studies that were prepared in another way than these (`preparation` in {MODEL_JSON}); "
            "prepare them as it says"
        )


def hash_file(path: Path) -> str:
    """Return the sha256 of a regular file.

    Raises:
        OSError: If it cannot be read, or is none.
    """
    with open_regular(path, WEIGHTS_BYTES) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundle_hash(folder: Path) -> str:
    """Return the sha256 of `model.json` and of the weights: what a label result depends on.

    A process reads the files once, as long as they stay what they are.

    Raises:
        OSError: If the bundle cannot be read.
    """
    files = (folder / MODEL_JSON, folder / WEIGHTS)
    return _hash_files(files, tuple(_identity(file) for file in files))


def _identity(file: Path) -> tuple[int, ...]:
    """Return what changes when a file is written or replaced."""
    stat = file.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@functools.cache
def _hash_files(files: tuple[Path, ...], _: tuple[tuple[int, ...], ...]) -> str:
    return hashlib.sha256(json.dumps([hash_file(file) for file in files]).encode()).hexdigest()
