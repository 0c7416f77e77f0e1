"""A model bundle: a folder with everything that is needed to use a model. Importing this module loads no torch.

`model.safetensors` holds the tensors, `model.json` what they mean. No pickle. Loading checks the hash of the weights
and that the classes fit them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from histo.errors import UsageError
from histo.learn.layout import TILES, Layout, Task, TileLayout, VolumeLayout

MODEL_JSON = "model.json"
WEIGHTS = "model.safetensors"
HEAD_WEIGHT = "head.linear.weight"
BACKBONE_NAME = r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_.\-]{1,100})?"
"""A plain name, with the tag of its weights or without; others lead timm to a hub, or to a folder."""


class _Record(BaseModel):
    """A part of `model.json`; unlike a `Spec`, made by code and read back strictly."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Architecture(_Record):
    """Which network the weights belong to."""

    backbone: str
    """timm's model name, or one of `histo.learn.volume_networks`."""
    head: Literal["gap-bn-dropout-linear"] = "gap-bn-dropout-linear"
    dropout: float = Field(0.2, ge=0, lt=1)
    input_channels: int = 3


class TileInput(_Record):
    """What the network sees."""

    size_px: int = Field(gt=0)
    mpp: float | None
    """µm per pixel of a tile; null if the training source's resolution is unknown."""
    mean: tuple[float, float, float]
    """Subtracted from the pixels, which run from 0 to 255."""
    std: tuple[float, float, float]
    """The difference is divided by it."""
    kernel: Literal["box"] = "box"
    """How pixels of another resolution are averaged, see `histo.resample`."""

    @property
    def layout(self) -> TileLayout:
        """How a tile is laid out as an array."""
        return TILES


class VolumeInput(_Record):
    """What a network that classifies studies sees."""

    series: int = Field(gt=0)
    slices: int = Field(gt=0)
    """Of each series."""
    size_px: int = Field(gt=0)
    """Edge of a slice."""
    mean: tuple[float]
    """Subtracted from the voxels, which run from 0 to 255."""
    std: tuple[float]
    """The difference is divided by it."""
    preparation: dict[str, Any] | None
    """How a volume is made of a study; null if that is unknown, and studies cannot be labelled."""
    kernel: Literal["box"] = "box"
    """How slices of another size are averaged, see `histo.resample`."""

    @property
    def layout(self) -> VolumeLayout:
        """How a volume is laid out as an array."""
        return VolumeLayout(self.series, self.slices, self.preparation)


class Bundle(_Record):
    """The content of `model.json`."""

    schema_version: Literal[1] = 1
    task: Task = "tiles"
    architecture: Architecture
    classes: tuple[str, ...]
    """Names in the order of the network's outputs."""
    input: TileInput | VolumeInput
    temperature: float = Field(1.0, gt=0)
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

    @property
    def array_shape(self) -> tuple[int, ...]:
        """The shape of one array that the network sees: `(size_px, size_px, 3)`, or `(S, D, size_px, size_px)`."""
        return self.input.layout.shape(self.input.size_px)


def find_bundle(path: Path, epoch: int | None = None, flag: str = "--model") -> Path:
    """Return the folder of the bundle that a path means.

    Args:
        path: A bundle, or a training run.
        epoch: Which epoch of the run; None means its best bundle.
        flag: Where the path is from, for messages.

    Raises:
        UsageError: If there is none, or the checkpoint of that epoch was not kept.
    """
    if epoch is None:
        return path / "model" if (path / "model" / MODEL_JSON).is_file() else path
    index = path / "checkpoints" / "index.json"
    kept = json.loads(index.read_text())["kept"] if index.is_file() else []
    if epoch not in kept:
        names = ", ".join(map(str, kept)) or "none"
        raise UsageError(f"{flag} {path} --epoch {epoch}: no checkpoint of that epoch there; kept are: {names}")
    return path / "checkpoints" / f"epoch_{epoch:04d}"


def read_bundle(folder: Path, flag: str = "--model") -> Bundle:
    """Read and check a bundle, weights' hash and shape of the head included.

    Args:
        folder: The bundle.
        flag: Where its path is from, for messages.

    Raises:
        UsageError: If something is missing, damaged, or does not fit together; the message names it.
    """
    if not folder.is_dir():
        raise UsageError(f"{flag} {folder}: no such folder")
    for name in (MODEL_JSON, WEIGHTS):
        if not (folder / name).is_file():
            raise UsageError(f"{flag} {folder}: not a model bundle, {name} is missing")
    try:
        bundle = Bundle.model_validate_json((folder / MODEL_JSON).read_bytes())
    except ValidationError as error:
        detail = error.errors()[0]
        raise UsageError(
            f"{folder / MODEL_JSON}: {'.'.join(map(str, detail['loc'])) or 'document'}: {detail['msg']}"
        ) from None
    _check_weights(folder, bundle, flag)
    return bundle


def _check_weights(folder: Path, bundle: Bundle, flag: str) -> None:
    path = folder / WEIGHTS
    found = hash_file(path)
    if found != bundle.weights_sha256:
        raise UsageError(
            f"{path}: sha256 is {found[:12]}…, {MODEL_JSON} says {bundle.weights_sha256[:12]}…; the bundle is damaged "
            "or was edited, copy it again"
        )
    try:
        with safe_open(path, framework="numpy") as tensors:
            outputs = tensors.get_slice(HEAD_WEIGHT).get_shape()[0]
    except SafetensorError as error:
        raise UsageError(f"{path}: {error}") from None
    if outputs != len(bundle.classes):
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
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundle_hash(folder: Path) -> str:
    """Return the sha256 of `model.json` and of the weights: what a label result depends on."""
    both = [hash_file(folder / MODEL_JSON), hash_file(folder / WEIGHTS)]
    return hashlib.sha256(json.dumps(both).encode()).hexdigest()
