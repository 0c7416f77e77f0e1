"""Load a bundle's predictor: OpenVINO on a CPU if converted, else torch."""

from pathlib import Path

from histo.learn.bundle import read_bundle
from histo.learn.network.spec import InferencePrecision
from histo.learn.openvino.record import FOLDER, read_conversion
from histo.learn.predict.base import Predictor, batch_on_cpu
from histo.learn.predict.precision import require_precision


def load_predictor(
    folder: Path,
    device: str = "cpu",
    threads: int = 1,
    batch_size: int | None = None,
    precision: InferencePrecision = "float32",
    openvino: Path | None = None,
) -> Predictor:
    """Make a bundle ready to classify.

    Args:
        folder: The bundle.
        device: `cpu`, `cuda` or `cuda:0`.
        threads: Of a CPU, for the network.
        batch_size: Tiles or volumes per forward pass; None: 8 on a CPU, of large volumes fewer; a GPU finds it itself.
        precision: `bf16` only where its agreement with float32 was measured and is high enough.
        openvino: Where the bundle's converted form is; None: in the bundle.

    Raises:
        UsageError: If the bundle cannot be used, or not in this precision.
        HistoError: If this CPU has no bfloat16, or this GPU no memory.
    """
    bundle = read_bundle(folder)
    form = openvino or folder / FOLDER
    conversion = read_conversion(form, folder)
    require_precision(precision, conversion, folder)
    if device == "cpu" and conversion is not None:
        from histo.learn.predict.openvino_predictor import OpenVinoPredictor  # noqa: PLC0415 -- what is not used is not loaded

        return OpenVinoPredictor(bundle, form, threads, batch_size or batch_on_cpu(bundle), precision)
    import torch  # noqa: PLC0415 -- likewise

    from histo.learn.predict.torch_predictor import TorchPredictor  # noqa: PLC0415 -- likewise

    torch.set_num_threads(threads)
    return TorchPredictor(folder, device, batch_size, precision)
