"""Convert a bundle for OpenVINO: trace, write, compare, measure bfloat16."""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from torch import nn

from histo.learn.array_layout import Layout, batch_axes
from histo.learn.bundle import Bundle, bundle_hash, hash_file, read_bundle
from histo.learn.data.subset import evenly
from histo.learn.network.model import Network, load_network
from histo.learn.openvino.compile_check import compiles
from histo.learn.openvino.core import has_bf16, ov
from histo.learn.openvino.record import (
    BINDING,
    CONSTANTS,
    CONVERTER,
    FOLDER,
    GRAPH,
    RECORD,
    Agreement,
    Conversion,
    binding,
    read_conversion,
)
from histo.learn.openvino.trace import NotConvertibleError, plain_features, probes, save_graph, trace
from histo.learn.predict.base import batch_on_cpu
from histo.learn.predict.openvino_predictor import OpenVinoPredictor
from histo.learn.predict.torch_predictor import TorchPredictor
from histo.resample import Pixels
from histo.store import TEMPORARY_SUFFIX, put_json, remove, replace_folder

MOST_DIFFERENCE = 1e-4
"""Of a probability in float32, between the converted form and torch."""
_TRIED_AGAINST_TORCH = 16
"""Of the tiles that agreement is measured on, those that torch sees too; it is slow."""


@dataclass(frozen=True)
class Form:
    """Where a bundle's converted form is.

    Attributes:
        folder: None if there is none.
        trouble: Why there is none.
    """

    folder: Path | None
    trouble: str | None = None


def ensure_form(folder: Path, fallback: Path | None = None, threads: int = 1, keeps_bundle: bool = False) -> Form:
    """Convert a bundle, unless it has a valid form; bfloat16 stays unmeasured.

    Args:
        folder: The bundle; its form goes into it.
        fallback: Where the form is put if the bundle cannot be written.
        threads: That may be used.
        keeps_bundle: Whether the bundle stays as it is.

    Raises:
        UsageError: If the bundle cannot be used.
    """
    places = ([] if keeps_bundle else [folder / FOLDER]) + ([fallback / FOLDER] if fallback else [])
    for place in places:
        if read_conversion(place, folder) is not None:
            return Form(place)
    trouble = ""
    for place in places:
        try:
            convert(folder, place, threads=threads)
        except NotConvertibleError as error:
            return Form(None, str(error))
        except OSError as error:
            if read_conversion(place, folder) is not None:  # another process was faster
                return Form(place)
            trouble = f"{place}: cannot be written ({error.strerror or error})"
        else:
            return Form(place)
    return Form(None, trouble)


def convert(folder: Path, into: Path | None = None, tiles: Pixels | None = None, threads: int = 1) -> Conversion:
    """Write a bundle's converted form, which takes its place as a whole.

    Args:
        folder: The bundle.
        into: Where the form goes; None: into the bundle.
        tiles: uint8, `(n, *array_shape)` of the bundle, to measure bfloat16 on. Without them, or on a CPU that has no
            bfloat16, what was measured before is kept.
        threads: That may be used.

    Returns:
        What was measured.

    Raises:
        UsageError: If the bundle cannot be used.
        NotConvertibleError: If its network cannot be converted, or gives other probabilities then.
        OSError: If the form cannot be written.
    """
    bundle = read_bundle(folder)
    into = into or folder / FOLDER
    before = read_conversion(into, folder)
    measured = tiles if tiles is not None and len(tiles) and has_bf16() else None
    draft = into.with_name(f".{uuid4().hex}{TEMPORARY_SUFFIX}")
    draft.mkdir(parents=True)
    try:
        _save_bound(_graph(folder, bundle), draft, folder)
        if not compiles(draft / GRAPH, draft / CONSTANTS, (batch_on_cpu(bundle), *bundle.array_shape)):
            raise NotConvertibleError(f"{folder}: OpenVINO fails to compile {bundle.architecture.backbone}")
        conversion = Conversion(
            converter=CONVERTER,
            openvino=metadata.version("openvino"),
            bundle_sha256=bundle_hash(folder),
            graph_sha256=hash_file(draft / GRAPH),
            constants_sha256=hash_file(draft / CONSTANTS),
            float32_difference=_compare_with_torch(folder, bundle, draft, tiles, threads),
            bf16=before and before.bf16 if measured is None else _agree(bundle, draft, measured, threads),
        )
        put_json(draft / RECORD, conversion.model_dump())
        replace_folder(draft, into)
    finally:
        remove(draft)
    return conversion


class _FromArrays(nn.Module):
    """The network without what only training needs: arrays as they are laid out, uint8, to logits."""

    def __init__(self, network: Network, layout: Layout) -> None:
        super().__init__()
        self.network = network
        self.axes = batch_axes(layout)

    def forward(self, arrays: torch.Tensor) -> torch.Tensor:
        features_BC = plain_features(self.network, arrays.permute(self.axes))
        return self.network.head(features_BC, 1)  # type: ignore[no-any-return] # the count is for training


def _graph(folder: Path, bundle: Bundle) -> ov.Model:
    """Trace the network of a bundle."""
    try:
        return trace(_FromArrays(load_network(folder, bundle), bundle.input.layout), bundle.array_shape)
    except NotConvertibleError as error:
        raise NotConvertibleError(f"{folder}: {bundle.architecture.backbone} {error}") from error


def _save_bound(graph: ov.Model, draft: Path, bundle: Path) -> None:
    """Write a graph that bears what it was made of, and its constants.

    Raises:
        NotConvertibleError: If OpenVINO writes other constants the second time.
        OSError: If it cannot be written.
    """
    save_graph(graph, draft / GRAPH)
    constants = hash_file(draft / CONSTANTS)
    graph.set_rt_info(binding(bundle, constants), list(BINDING))
    save_graph(graph, draft / GRAPH)
    if hash_file(draft / CONSTANTS) != constants:
        raise NotConvertibleError(f"{bundle}: OpenVINO does not write it twice alike")


def _compare_with_torch(folder: Path, bundle: Bundle, form: Path, tiles: Pixels | None, threads: int) -> float:
    """Return the greatest difference of a probability in float32 on probes and some tiles.

    Raises:
        NotConvertibleError: If it is too great.
    """
    tried, batch = probes(bundle.input.layout, bundle.input.size_px), batch_on_cpu(bundle)
    if tiles is not None:
        tried = np.concatenate([tried, evenly(tiles, _TRIED_AGAINST_TORCH)])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        expected = TorchPredictor(folder, batch_size=batch)(tried)
        found = OpenVinoPredictor(bundle, form, threads, batch, "float32")(tried)
    except FloatingPointError as error:
        raise NotConvertibleError(f"{folder}: {error}") from None
    finally:
        torch.set_num_threads(before)
    difference = float(np.abs(found - expected).max())
    if difference > MOST_DIFFERENCE:
        raise NotConvertibleError(
            f"{folder}: OpenVINO gives other probabilities than torch (by {difference:.2g}; at most {MOST_DIFFERENCE})"
        )
    return difference


def _agree(bundle: Bundle, form: Path, tiles: Pixels, threads: int) -> Agreement:
    """Measure bfloat16 against float32."""
    exact = OpenVinoPredictor(bundle, form, threads, batch_on_cpu(bundle), "float32")(tiles)
    rough = OpenVinoPredictor(bundle, form, threads, batch_on_cpu(bundle), "bf16")(tiles)
    difference_N = np.abs(exact - rough).max(axis=1)
    return Agreement(
        tiles=len(tiles),
        same_class=float((exact.argmax(axis=1) == rough.argmax(axis=1)).mean()),
        mean_difference=float(difference_N.mean()),
        max_difference=float(difference_N.max()),
    )
