"""Choose the runtime of a label run, and convert its bundle if need be."""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import ray
import ray.exceptions

from histo import store
from histo.errors import HistoError
from histo.learn.openvino.record import FOLDER, read_conversion
from histo.remote.cache import Cache
from histo.remote.location import AnyPath
from histo.run.cluster import cpus_here, root_cause
from histo.run.placement import Placement
from histo.run.say import say


@dataclass(frozen=True)
class Runtime:
    """On what the workers of a run compute; no row depends on it.

    Attributes:
        device: What torch calls the device.
        threads: CPU threads of a worker.
        openvino: Where the bundle's form for OpenVINO stands, if there is one.
        gpus: GPUs of a worker, 1 or a part of one; 0 on a CPU.
    """

    device: str = "cpu"
    threads: int = 1
    openvino: AnyPath | None = None
    gpus: float = 0.0

    def on_this_node(self) -> "Runtime":
        """Return it with as many threads as a worker on a GPU may have here; see `cpus_here`."""
        if not self.gpus or not ray.is_initialized():
            return self
        return replace(self, threads=cpus_here(self.gpus, self.threads))

    @property
    def regions_at_once(self) -> int:
        """Regions that a worker has in work: one on a CPU; beside a GPU as many as keep its reader threads busy."""
        return 1 if self.device == "cpu" else 2 + self.threads // 4


def here(copies: ExitStack, cache: Cache, model: AnyPath, runtime: Runtime) -> tuple[Path, Path | None]:
    """Return a bundle and its form for OpenVINO as they are on this node; copies last as long as their stack."""
    form = runtime.openvino
    return (
        copies.enter_context(cache.local_folder(model)),
        None if form is None else copies.enter_context(cache.local_folder(form)),
    )


def find_runtime(model: AnyPath, out: AnyPath, placement: Placement, copy: Path) -> Runtime:
    """Return on what workers compute; without a GPU the bundle is converted, if it is not yet.

    Args:
        model: The bundle.
        out: Output folder, where the converted form is put if the bundle cannot be written.
        placement: Where the workers are.
        copy: The bundle on this node.

    Raises:
        HistoError: If the bundle cannot be converted.
    """
    openvino = None if placement.gpus else openvino_form(model, out, copy)
    return Runtime(placement.torch_device, max(1, placement.cpus), openvino, placement.gpus)


def openvino_form(model: AnyPath, out: AnyPath, copy: Path) -> AnyPath | None:
    """Return where the bundle's form for CPUs is; it is made where there is none, once, by a task that loads torch.

    Args:
        model: The bundle.
        out: Output folder, where the form is put if the bundle cannot be written, or is in object storage.
        copy: The bundle on this node.

    Raises:
        HistoError: If the task fails.
    """
    if read_conversion(copy / FOLDER, copy) is not None:
        return model / FOLDER
    say(f"{model}: converting the network for CPUs, once")
    try:
        form = ray.get(ray.remote(num_cpus=0)(_convert).remote(model, out / "staging"))
    except ray.exceptions.RayError as error:
        raise HistoError(f"{model}: cannot be converted: {root_cause(error)}") from error
    if isinstance(form, str):
        say(f"{form}; it runs in torch, which takes longer")
        return None
    return form


def _convert(model: AnyPath, fallback: AnyPath) -> AnyPath | str:
    """Return where the form is, or the reason if there can be none."""
    from histo.learn.conversion import ensure_form  # noqa: PLC0415 -- the driver must not load torch

    if isinstance(model, Path) and isinstance(fallback, Path):
        form = ensure_form(model, fallback)
        return form.folder or form.trouble or ""
    with Cache().local_folder(model) as copy, tempfile.TemporaryDirectory() as folder:
        form = ensure_form(copy, Path(folder), keeps_bundle=copy is not model)  # others read a copy, too
        if form.folder is None:
            return form.trouble or ""
        if form.folder == copy / FOLDER:
            return form.folder
        store.put_folder(form.folder, fallback / FOLDER)
    return fallback / FOLDER
