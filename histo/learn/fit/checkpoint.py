"""Write bundles and checkpoints; a checkpoint is a bundle with its state."""

import shutil
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from safetensors.torch import save

from histo.errors import UsageError
from histo.learn.bundle import MODEL_JSON, WEIGHTS, Bundle, hash_file
from histo.learn.epoch_index import STATE
from histo.learn.fit.history import History
from histo.learn.fit.loop import Epoch
from histo.learn.network.model import Network
from histo.regular_file import WEIGHTS_BYTES, open_regular
from histo.remote.location import AnyPath
from histo.store import TEMPORARY_SUFFIX, opened, put_atomic, put_json, replace_folder

VALIDATION = "validation.safetensors"


@dataclass(frozen=True)
class Position:
    """Where training stands after an epoch.

    Batch order, augmentation and dropout are functions of the seed and the epoch, the learning rate is one of the step:
    no state of a random generator, sampler or schedule is needed beside it to go on.

    Attributes:
        phase: Name of the phase that the epoch belongs to.
        epoch: Number of the epoch that has ended.
        step: Number of the last step, 1 the first of the run.
        seed: Of the run.
    """

    phase: str
    epoch: int
    step: int
    seed: int


def write_epoch(
    history: History, epoch: Epoch, network: Network, optimizer: torch.optim.Optimizer, bundle: Bundle, seed: int
) -> None:
    """Enter an epoch that has ended into a run's history, with its checkpoint.

    Args:
        history: Of the run.
        epoch: What was measured in it.
        network: As it is after it.
        optimizer: Likewise.
        bundle: Describes the network; temperature and metrics are filled in.
        seed: Of the run.
    """
    metrics = {name: value for name, value in vars(epoch).items() if name not in ("steps", "val_logits_NK")}
    described = bundle.model_copy(
        update={"origin": bundle.origin | {"metrics": metrics}, "temperature": epoch.temperature}
    )
    position = Position(epoch.phase, epoch.epoch, epoch.steps[-1].step, seed)
    with history.entering(metrics, [asdict(step) for step in epoch.steps]) as folder:
        write_checkpoint(folder, network, described, optimizer, position, epoch.val_logits_NK)


def write_checkpoint(
    folder: AnyPath,
    network: Network,
    bundle: Bundle,
    optimizer: torch.optim.Optimizer,
    position: Position,
    val_logits_NK: npt.NDArray[np.floating] | None,
) -> None:
    """Put a checkpoint in place as a whole: `model.json`, `model.safetensors`, `state.pt`, `validation.safetensors`.

    Args:
        folder: Where it goes.
        network: Its weights are taken.
        bundle: Describes the network; its `weights_sha256` is filled in.
        optimizer: Its state is taken.
        position: Where training stands.
        val_logits_NK: What the network makes of the validation cases, in the order of the run's cases; None without
            any.
    """
    draft = _draft(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with put_atomic(draft / WEIGHTS) as file:
        file.write(save(tensors))
    complete = bundle.model_copy(update={"weights_sha256": hash_file(draft / WEIGHTS)})
    put_json(draft / MODEL_JSON, complete.model_dump(mode="json"))
    state: dict[str, Any] = {"position": asdict(position), "optimizer": optimizer.state_dict()}
    with put_atomic(draft / STATE) as file:
        torch.save(state, file)
    if val_logits_NK is not None:
        with put_atomic(draft / VALIDATION) as file:
            file.write(safetensors.numpy.save({"logits": val_logits_NK}))
    replace_folder(draft, folder)


def read_state(folder: AnyPath) -> tuple[Position, dict[str, Any]]:
    """Return where a checkpoint stands, and the state of its optimiser.

    Raises:
        UsageError: If it is missing or damaged; no code in it is ever run.
    """
    path = folder / STATE
    try:
        with _opened(path) as file, warnings.catch_warnings(action="ignore"):
            state = torch.load(file, map_location="cpu", weights_only=True)
        return Position(**state["position"]), dict(state["optimizer"])
    except Exception:  # noqa: BLE001 -- the unpickler raises what it runs into, and torch's words advise to run its code
        raise UsageError(
            f"{path}: missing or damaged, so that the run cannot go on from this epoch; copy it again, or begin anew "
            f"with --start-from {folder}"
        ) from None


def read_validation(folder: AnyPath) -> npt.NDArray[np.floating]:
    """Return the logits of the validation cases that a checkpoint was written with, `(N, K)`."""
    logits: npt.NDArray[np.floating] = safetensors.numpy.load(_read(folder / VALIDATION))["logits"]
    return logits


def extract_bundle(checkpoint: AnyPath, folder: AnyPath) -> None:
    """Put the bundle of a checkpoint in place as a whole, without the state."""
    draft = _draft(folder)
    for name in (MODEL_JSON, WEIGHTS):
        with opened(checkpoint / name) as file, put_atomic(draft / name) as copy:
            shutil.copyfileobj(file, copy)
    replace_folder(draft, folder)


def _opened(path: AnyPath) -> BinaryIO:
    return open_regular(path, WEIGHTS_BYTES) if isinstance(path, Path) else opened(path)


def _read(path: AnyPath) -> bytes:
    with opened(path) as file:
        return file.read()


def _draft(folder: AnyPath) -> Path:
    """Make a folder beside the place where its content will stand; of object storage, a temporary one."""
    if not isinstance(folder, Path):
        return Path(tempfile.mkdtemp())
    draft = folder.with_name(f".{uuid4().hex}{TEMPORARY_SUFFIX}")
    draft.mkdir(parents=True)
    return draft
