"""Model: a bundle as a function of images."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, cast

import numpy as np
import numpy.typing as npt
from PIL.Image import Image as PillowImage
from upath import UPath

from histo.errors import UsageError
from histo.interface.paths import StrPath, full_place
from histo.interface.words import in_python
from histo.learn.bundle import Bundle, TileInput, find_bundle, read_bundle
from histo.learn.data.images import FileImages, from_pillow
from histo.learn.network.spec import InferencePrecision
from histo.remote.cache import Cache
from histo.remote.location import AnyPath
from histo.resample import Pixels
from histo.run.placement import usable_cpus

if TYPE_CHECKING:
    from histo.learn.predict.base import Predictor

Image = Pixels | PillowImage | StrPath
"""A uint8 array, an image of Pillow's, or the path of an image file."""


class Model:
    """A model bundle as a function: `model(images)` returns class probabilities.

    Attributes:
        path: Folder of the bundle.
        classes: Class names, in the order of the probabilities.
        mpp: Resolution of a tile (µm/px); None if that is unknown, or the model classifies studies.
        size_px: Edge of a tile or a slice (px).
        bundle: Content of `model.json`.
    """

    def __init__(self, path: AnyPath, bundle: Bundle, predictor: "Predictor") -> None:
        self.path = path
        self.bundle = bundle
        self._predictor = predictor

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.bundle.classes

    @property
    def mpp(self) -> float | None:
        """Resolution of a tile, µm per pixel; None if that is unknown, or the model classifies studies."""
        seen = self.bundle.input
        return seen.mpp if isinstance(seen, TileInput) else None

    @property
    def size_px(self) -> int:
        """Edge of a tile or a slice, px."""
        return self.bundle.input.size_px

    def __call__(self, images: Image | Iterable[Image]) -> npt.NDArray[np.float32]:
        """Classify one image, or several, at the resolution of the model. Nothing is resized.

        Args:
            images: A tile: a uint8 RGB array `(size_px, size_px, 3)`, an image of Pillow's, or the path of an image
                file, each `size_px` large. Or several: an array `(n, size_px, size_px, 3)`, a list, or a generator,
                of which a batch at a time is held in memory. A model of studies takes uint8 volumes `(series, slices,
                size_px, size_px)`.

        Returns:
            Probabilities, which sum to 1: `(classes,)` of one image, `(n, classes)` of several.

        Raises:
            ValueError: If an image has another size or type.
            TypeError: If something else than an image is given.
            ImageError: If an image file cannot be read.
            FloatingPointError: If the network gives no finite probabilities.
        """
        if _is_one(images, len(self.bundle.array_shape)):
            return cast(npt.NDArray[np.float32], self._predictor(self._array(images)[None])[0])
        if isinstance(images, np.ndarray) and images.ndim != 1 + len(self.bundle.array_shape):
            raise ValueError(self._explain(images))
        several = cast(Iterable[Image], images)
        parts = [*self._predictor.over(self._batches(several))]
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)), np.float32)

    def _batches(self, images: Iterable[Image]) -> Iterator[Pixels]:
        batch: list[Pixels] = []
        for image in images:
            batch.append(self._array(image))
            if len(batch) == self._predictor.batch_size:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)

    def _array(self, image: Image) -> Pixels:
        """Return the pixels of an image, and make sure that the network sees such."""
        if isinstance(image, str | os.PathLike):
            image = FileImages((Path(image),)).load(0)
        elif isinstance(image, PillowImage):
            image = from_pillow(image)
        if not isinstance(image, np.ndarray):
            raise TypeError(f"{type(image).__name__} is no image; give a uint8 array, an image of Pillow's, or a path")
        if image.shape != self.bundle.array_shape or image.dtype != np.uint8:
            raise ValueError(self._explain(image))
        return image

    def _explain(self, array: npt.NDArray[Any]) -> str:
        """Say why an array is none that the network sees."""
        shape, at = self.bundle.array_shape, f" at {self.mpp:g} µm/px" if self.mpp else ""
        wanted = f"the image is {array.dtype} {array.shape}, and the model sees uint8 {shape}{at}"
        if array.ndim != len(shape) or array.shape[-1] != shape[-1]:
            axes = "(height, width, RGB)" if self.bundle.task == "tiles" else "(series, slices, height, width)"
            return f"{wanted}; its axes are {axes}"
        if array.dtype != np.uint8:
            return f"{wanted}; give values from 0 to 255"
        return f"{wanted}; nothing is resized: cut or resample it to that"

    def __repr__(self) -> str:
        """Say which model it is."""
        at = f" at {self.mpp:g} µm/px" if self.mpp else ""
        return f"<histo.Model {self.path}: {len(self.classes)} classes, {self.size_px} px{at}>"


def _is_one(images: Image | Iterable[Image], axes: int) -> TypeGuard[Image]:
    if isinstance(images, np.ndarray):
        return images.ndim == axes
    return isinstance(images, str | os.PathLike | PillowImage)


def load_model(
    path: StrPath | UPath,
    *,
    device: Literal["auto", "cpu", "gpu"] = "auto",
    precision: InferencePrecision = "float32",
    batch_size: int | None = None,
) -> Model:
    """Load a model.

    Args:
        path: A model bundle (a folder), or a training run, of which the best bundle is taken.
        device: Device to compute on; `auto` takes a GPU if there is one.
        precision: Arithmetic of the network; `bf16` needs a bundle for which `histo convert` found it good enough.
        batch_size: Images per forward pass; default: 8 on a CPU, the fastest size on a GPU.

    Raises:
        UsageError: If there is no usable bundle, or there is no GPU and one is asked for.

    Examples:
        model = histo.load_model("RUN")
        model("tile.png")
        array([0.01, 0.97, 0.02], dtype=float32)
    """
    if device not in ("auto", "cpu", "gpu"):
        raise ValueError(f"device: {device!r}: it is 'auto', 'cpu' or 'gpu'")
    folder = find_bundle(full_place(path), flag="model")
    with Cache().local_folder(folder) as copy:
        bundle = read_bundle(copy, flag="model")
        from histo.learn.predict.load import load_predictor  # noqa: PLC0415 -- a path that is wrong is said first

        with in_python():
            predictor = load_predictor(copy, _device(device), usable_cpus(), batch_size, precision)
    return Model(folder, bundle, predictor)


def _device(asked: Literal["auto", "cpu", "gpu"]) -> str:
    """Return the device as torch names it."""
    if asked == "cpu":
        return "cpu"
    import torch  # noqa: PLC0415 -- only it knows of GPUs, and it takes seconds

    if torch.cuda.is_available():
        return "cuda"
    if asked == "gpu":
        raise UsageError("device='gpu': there is no GPU that torch can use; give device='cpu'")
    return "cpu"
