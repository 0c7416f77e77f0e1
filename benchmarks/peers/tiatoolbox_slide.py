"""Label a folder of slides with TIAToolbox's PatchPredictor, given a bundle of histo's; run it in its environment.

`python tiatoolbox_slide.py SLIDES BUNDLE OUT`, with `benchmarks/` on PYTHONPATH.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import zarr
from plain_network import PlainNetwork, describe, normalisation
from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
from tiatoolbox.models.engine.patch_predictor import PatchPredictor
from tiatoolbox.models.models_abc import ModelABC

Array = npt.NDArray[Any]


class Model(ModelABC):  # type: ignore[misc] # its package lies in another environment
    """The bundle's network behind the toolbox's interface."""

    def __init__(self, bundle: Path) -> None:
        super().__init__()
        self.network = PlainNetwork(bundle)
        self.mean, self.std = (np.array(values, np.float32) for values in normalisation(bundle))
        self.preproc_func = self.normalise
        self.postproc_func = self.choose

    def normalise(self, image: Array) -> torch.Tensor:
        """Return a tile's pixels as the network takes them, `(3, H, W)`."""
        return torch.from_numpy((image.astype(np.float32) / 255 - self.mean) / self.std).permute(2, 0, 1)

    @staticmethod
    def choose(probabilities: Array) -> Array:
        """Return the most probable class of each tile."""
        chosen: Array = probabilities.argmax(axis=-1)
        return chosen

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities."""
        probabilities: torch.Tensor = self.network(images).softmax(dim=1)
        return probabilities

    @staticmethod
    def infer_batch(model: torch.nn.Module, batch_data: torch.Tensor, *, device: str) -> Array:
        """Return the probabilities of a batch."""
        with torch.inference_mode():
            probabilities: Array = model(batch_data.to(device).float()).cpu().numpy()
        return probabilities


def main() -> None:
    """Label, and print how many tiles were labelled."""
    slides, bundle, out = (Path(name) for name in sys.argv[1:])
    described = describe(bundle)["input"]
    resolution, edge = [{"units": "mpp", "resolution": described["mpp"]}], described["size_px"]
    config = IOPatchPredictorConfig(
        input_resolutions=resolution, patch_input_shape=(edge, edge), stride_shape=(edge, edge)
    )
    predictor = PatchPredictor(model=Model(bundle), batch_size=32, num_workers=2)
    outputs = predictor.run(
        images=sorted(slides.iterdir()),
        patch_mode=False,
        ioconfig=config,
        save_dir=out,
        output_type="zarr",
        return_probabilities=True,
        device="cpu",
    )
    print(sum(zarr.open(path, mode="r")["probabilities"].shape[0] for path in outputs.values()))


if __name__ == "__main__":
    main()
