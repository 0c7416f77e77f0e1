"""The script that a user would write to label a slide: OpenSlide, Dataset, DataLoader, eager float32 model.

`python benchmarks/plain_label.py --slide S --model BUNDLE --places PLACES.npy --tiles 600 --out OUT.npy`, where PLACES
are the level-0 corners `(x, y)` of tiles of 224 px at 0.5 µm/px, on a slide of 0.25 µm/px.
"""

import argparse
from pathlib import Path

import numpy as np
import openslide
import torch
from plain_network import PlainNetwork, normalisation
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

TILE_PX = 224
REDUCTION = 2
"""Level-0 pixels per pixel of a tile."""


class Tiles(Dataset[torch.Tensor]):
    """Tiles of one slide, each read at level 0 and reduced."""

    def __init__(self, slide: Path, places: np.ndarray, mean: list[float], std: list[float]) -> None:
        self.slide = slide
        self.places = places.tolist()
        self.handle: openslide.OpenSlide | None = None
        self.prepare = transforms.Compose(
            [transforms.Resize(TILE_PX), transforms.ToTensor(), transforms.Normalize(mean, std)]
        )

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> torch.Tensor:
        self.handle = self.handle or openslide.OpenSlide(self.slide)  # one for each process
        edge = TILE_PX * REDUCTION
        image = self.handle.read_region(tuple(self.places[index]), 0, (edge, edge)).convert("RGB")
        tensor: torch.Tensor = self.prepare(image)
        return tensor


@torch.inference_mode()
def main() -> None:
    """Label tiles, and save their probabilities."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("slide", "model", "places", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--tiles", type=int, required=True, help="how many, of the first")
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    network = PlainNetwork(options.model)
    tiles = Tiles(options.slide, np.load(options.places)[: options.tiles], *normalisation(options.model))
    batches = DataLoader(tiles, options.batch_size, num_workers=2)
    probabilities = torch.cat([network(images).softmax(dim=1) for images in batches])
    np.save(options.out, probabilities.numpy())


if __name__ == "__main__":
    main()
