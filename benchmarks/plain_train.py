"""What a person would write without histo: torchrun, DistributedDataParallel, ImageFolder, DataLoader.

`torchrun --standalone --nproc-per-node 2 benchmarks/plain_train.py DATA OUT.json head|tune EPOCHS`

The same network, images, batch, optimiser and changes of images as `benchmarks/train.py` gives histo; the rate of every
epoch, images per second over all processes, goes to OUT.json.
"""

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from histo.learn.bundle import Architecture
from histo.learn.network.model import pretrained_network
from histo.learn.network.spec import DEFAULT_BACKBONE

BATCH = 32


class Plain(nn.Module):
    """The pretrained backbone, frozen or not, and a new head; the batch normalisation of the backbone is frozen."""

    def __init__(self, classes: int, frozen: bool) -> None:
        super().__init__()
        network = pretrained_network(Architecture(backbone=DEFAULT_BACKBONE), classes)
        self.backbone, self.frozen = network.backbone, frozen
        self.backbone.requires_grad_(not frozen)
        self.head = nn.Sequential(nn.BatchNorm1d(1280), nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of uint8 images."""
        self.backbone.eval()
        normal = ((images.float() - 127) / 128).contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(not self.frozen):
            features = self.backbone(normal)
        logits: torch.Tensor = self.head(features)
        return logits


def main() -> None:
    """Train, and write the rates."""
    data, out, mode, epochs = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    workers = dist.get_world_size()
    turn = v2.RandomRotation(72, v2.InterpolationMode.BILINEAR)
    images = ImageFolder(data, v2.Compose([v2.ToImage(), v2.RandomHorizontalFlip(), turn]))
    sampler: DistributedSampler[object] = DistributedSampler(images)
    loader = DataLoader(images, BATCH // workers, sampler=sampler)
    model = DistributedDataParallel(Plain(len(images.classes), mode == "head").to(memory_format=torch.channels_last))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    criterion = nn.CrossEntropyLoss()
    rates = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        model.train()  # type: ignore[no-untyped-call] # torch's own
        start = time.perf_counter()
        for batch, labels in loader:
            loss = criterion(model(batch), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rates.append(len(images) / (time.perf_counter() - start))
    if dist.get_rank() == 0:
        out.write_text(json.dumps(rates))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
