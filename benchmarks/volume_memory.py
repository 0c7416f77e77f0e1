"""What one training step on full-size volumes, 3 x 20 x 512 x 512, takes: peak memory and seconds, network by network.

    python benchmarks/volume_memory.py --precisions float32 --batches 1
    python benchmarks/volume_memory.py --precisions bf16 --batches 10 --checkpointing yes

A step is what a training run does to a batch: augmentation, forward, backward, AdamW. Each is taken in a process of its
own; on a GPU memory is what torch had allocated at most there, on a CPU the peak resident memory of the process less
that before the first step. The default backbone has its ImageNet weights, the others random ones.
"""

import argparse
import resource
import subprocess
import sys
import time

import torch
from torch.nn.functional import cross_entropy

from histo.learn.array_layout import VolumeLayout
from histo.learn.bundle import Architecture
from histo.learn.fit.augment import augment
from histo.learn.fit.augment_spec import AugmentSpec
from histo.learn.fit.optimizer import make_optimizer
from histo.learn.fit.phases import FitSpec, Phase
from histo.learn.network.backbones import dimensions_of
from histo.learn.network.model import Network, pretrained_network, random_network
from histo.learn.network.spec import DEFAULT_BACKBONE, Precision

LAYOUT, SIZE_PX = VolumeLayout(3, 20), 512
STEPS = 2


def main() -> None:
    """Measure each network in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=[DEFAULT_BACKBONE, "resnet3d_18", "alexnet_2d", "lenet_3d"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bf16"])
    parser.add_argument("--checkpointing", nargs="+", default=["no", "yes"])
    parser.add_argument("--one", nargs=4, metavar=("NETWORK", "BATCH", "PRECISION", "CHECKPOINTING"))
    options = parser.parse_args()
    if options.one:
        name, batch, precision, checkpointing = options.one
        measure(name, int(batch), precision, checkpointing == "yes")
        return
    print(
        "| network | batch | precision | checkpointing | peak memory, GB | s a step |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for name in options.networks:
        for batch in options.batches:
            for precision in options.precisions:
                for checkpointing in options.checkpointing:
                    one = [name, str(batch), precision, checkpointing]
                    done = subprocess.run(  # noqa: S603 -- this script itself
                        [sys.executable, __file__, "--one", *one], capture_output=True, text=True, check=False
                    )
                    result = done.stdout.strip() if done.returncode == 0 else f"failed ({done.returncode}) |"
                    print(f"| {' | '.join(one)} | {result} |", flush=True)


def measure(name: str, batch: int, precision: Precision, checkpointing: bool) -> None:
    """Print peak memory and seconds of a step."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    network = build(name).to(device)
    network.to(memory_format=network.memory_format)
    network.set_checkpointing(checkpointing)
    optimizer = make_optimizer(network, Phase("tune", FitSpec()))
    images = torch.randint(0, 256, (batch, LAYOUT.series, LAYOUT.slices, SIZE_PX, SIZE_PX), dtype=torch.uint8).to(
        device
    )
    labels = torch.arange(batch, device=device) % 2
    before = peak(device)
    network.train()
    network.backbone.eval()
    network.head.norm.eval()  # of a batch of one there is no variance
    seconds = []
    for step in range(STEPS):
        start = time.perf_counter()
        changed = augment(images, AugmentSpec(preset="volume"), [(0, step, i, 0) for i in range(batch)])
        logits = network.head(network.features(changed, precision), batch)
        optimizer.zero_grad()
        cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call] # torch's own
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    print(f"{(peak(device) - before) / 1e9:.1f} | {min(seconds):.1f}")


def build(name: str) -> Network:
    """Return a network of two classes."""
    architecture = Architecture(backbone=name, input_channels=LAYOUT.channels(dimensions_of(name)))
    if name == DEFAULT_BACKBONE:
        return pretrained_network(architecture, 2, None, LAYOUT)
    return random_network(architecture, 2, LAYOUT)


def peak(device: torch.device) -> int:
    """Return the most memory so far, bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
