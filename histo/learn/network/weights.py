"""Read files of pretrained weights, and the configuration beside them."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from histo.errors import UsageError
from histo.learn.array_layout import Layout
from histo.regular_file import WEIGHTS_BYTES, open_regular, read_regular, require_regular

_CONFIGURATION = "config.json"
"""What timm, and the hubs that it loads from, put beside weights."""
_FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
_WHOLE = frozenset((torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))
_SHARE = Annotated[float, Field(ge=0, le=1)]
_DEVIATION = Annotated[float, Field(ge=0.001, le=3)]


@dataclass(frozen=True)
class Normalisation:
    """How values from 0 to 255 become the network's input: `(value - mean) / std`, per colour channel, or for all."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def for_layout(self, layout: Layout) -> "Normalisation":
        """Return what that of red, green and blue is for the channels of a layout."""
        return Normalisation(layout.of_channels(self.mean), layout.of_channels(self.std))


class _PretrainedConfiguration(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    mean: tuple[_SHARE, _SHARE, _SHARE]
    std: tuple[_DEVIATION, _DEVIATION, _DEVIATION]


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a file by name: safetensors, or a state dictionary of torch, of which no code is run.

    Raises:
        UsageError: If it is not such a file, or one of its tensors is not plain, or not finite.
    """
    where = f"--network.weights {path}"
    try:
        if path.suffix.lower() == ".safetensors":
            require_regular(path, WEIGHTS_BYTES)
            found: object = load_file(path)
        else:
            found = _unpickled(where, path)
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror or error}; give a file of weights") from None
    except (SafetensorError, ValueError) as error:
        raise UsageError(f"{where}: not a safetensors file ({first_line(error)}); copy it again") from None
    return _checked(where, found)


def _unpickled(where: str, path: Path) -> object:
    try:
        with open_regular(path, WEIGHTS_BYTES) as file, warnings.catch_warnings(action="ignore"):
            found: object = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # noqa: BLE001 -- of any kind; torch's words, which advise to run the file's code, are left out
        raise UsageError(
            f"{where}: damaged, or holds other things than tensors, which histo never unpickles, since that runs code; "
            "save its state dictionary as safetensors"
        ) from None
    return found


def _checked(where: str, found: object) -> dict[str, torch.Tensor]:
    if not isinstance(found, Mapping) or not found:
        raise UsageError(f"{where}: holds no tensors by name; save the network's state dictionary")
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise UsageError(f"{where}: {str(name)!r} is no tensor; save the network's state dictionary alone")
        if not _is_plain(tensor):
            raise UsageError(f"{where}: tensor {name} is not of plain real numbers; convert the weights")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UsageError(f"{where}: tensor {name} has values that are not finite; these weights are damaged")
    return dict(found)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor has a value of a common type in memory for each of its places."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.dtype in _FLOATS | _WHOLE
        and not tensor.is_nested
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def own_normalisation(path: Path, backbone: str) -> Normalisation | None:
    """Return how the weights of a file want their input, as timm's `config.json` beside it says; None if there is none.

    Args:
        path: The weights.
        backbone: timm's name of the network that they are to fill.

    Raises:
        UsageError: If the configuration is damaged, or of another network than timm builds by this name.
    """
    place = path.with_name(_CONFIGURATION)
    document = _read_configuration(place)
    architecture, pretrained = document.get("architecture"), document.get("pretrained_cfg", document)
    if not isinstance(architecture, str):  # not timm's
        return None
    if architecture.partition(".")[0] != backbone.partition(".")[0]:
        raise UsageError(
            f"{place}: the weights beside it are of {architecture!r}, not {backbone}; give --network.backbone, or take "
            "the weights elsewhere"
        )
    changed = sorted(set(document.get("model_args") or ()) - {"num_classes"})
    if changed:
        raise UsageError(
            f"{place}: builds {backbone} in another way (model_args: {', '.join(map(repr, changed))}), which no name "
            "of timm's does; such weights cannot be used yet"
        )
    if not isinstance(pretrained, dict) or not {"mean", "std"} & set(pretrained):
        return None
    try:
        values = _PretrainedConfiguration.model_validate(pretrained)
    except ValidationError as error:
        detail = error.errors()[0]
        raise UsageError(f"{place}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}; correct it") from None
    return Normalisation(times_255(values.mean), times_255(values.std))


def _read_configuration(place: Path) -> dict[str, Any]:
    if not place.is_file():
        return {}
    try:
        document = json.loads(read_regular(place))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{place}: lies beside --network.weights, and is not readable ({first_line(error)}); correct or remove it"
        ) from None
    return document if isinstance(document, dict) else {}


def times_255(values: tuple[float, ...]) -> tuple[float, ...]:
    """Turn numbers for pixels from 0 to 1 into those for pixels from 0 to 255."""
    return tuple(255 * value for value in values)


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says."""
    return (str(error) or type(error).__name__).strip().splitlines()[0]
