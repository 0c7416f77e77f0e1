"""Choose the runtime of a label run, and convert its bundle if need be."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ray
import ray.exceptions

from histo.errors import HistoError
from histo.learn.openvino.record import FOLDER, read_conversion
from histo.run.cluster import root_cause
from histo.run.placement import Placement
from histo.run.say import say

if TYPE_CHECKING:
    from histo.learn.conversion import Form


@dataclass(frozen=True)
class Runtime:
    """On what the workers of a run compute; no row depends on it.

    Attributes:
        device: What torch calls the device.
        threads: CPU threads of a worker.
        openvino: Where the bundle's form for OpenVINO stands, if there is one.
    """

    device: str = "cpu"
    threads: int = 1
    openvino: Path | None = None

    @property
    def regions_at_once(self) -> int:
        """Regions that a worker has in work: one on a CPU; beside a GPU as many as keep its reader threads busy."""
        return 1 if self.device == "cpu" else 2 + self.threads // 4


def find_runtime(model: Path, out: Path, placement: Placement) -> Runtime:
    """Return on what workers compute; without a GPU the bundle is converted, if it is not yet.

    Args:
        model: The bundle.
        out: Output folder, where the converted form is put if the bundle cannot be written.
        placement: Where the workers are.

    Raises:
        HistoError: If the bundle cannot be converted.
    """
    openvino = None if placement.gpus else openvino_form(model, out)
    return Runtime(placement.torch_device, max(1, placement.cpus), openvino)


def openvino_form(model: Path, out: Path) -> Path | None:
    """Return where the bundle's form for CPUs is; it is made where there is none, once, by a task that loads torch.

    Args:
        model: The bundle.
        out: Output folder, where the form is put if the bundle cannot be written.

    Raises:
        HistoError: If the task fails.
    """
    place = model / FOLDER
    if read_conversion(place, model) is not None:
        return place
    say(f"{model}: converting the network for CPUs, once")
    try:
        form = ray.get(ray.remote(num_cpus=0)(_convert).remote(model, out / "staging"))
    except ray.exceptions.RayError as error:
        raise HistoError(f"{model}: cannot be converted: {root_cause(error)}") from error
    if form.folder is None:
        say(f"{form.trouble}; it runs in torch, which takes longer")
    return form.folder


def _convert(model: Path, fallback: Path) -> "Form":
    from histo.learn.conversion import ensure_form  # noqa: PLC0415 -- the driver must not load torch

    return ensure_form(model, fallback)
