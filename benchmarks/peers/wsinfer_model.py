"""Write a bundle of histo's as WSInfer takes models: a description, and the network in TorchScript.

`python wsinfer_model.py BUNDLE OUT`, in WSInfer's environment, with `benchmarks/` on PYTHONPATH.
"""

import json
import sys
from pathlib import Path

import torch
from plain_network import PlainNetwork, describe, normalisation


def main() -> None:
    """Write `config.json` and `model.pt`."""
    bundle, out = (Path(name) for name in sys.argv[1:])
    described = describe(bundle)
    size_px, classes = described["input"]["size_px"], described["classes"]
    mean, std = normalisation(bundle)
    config = {
        "spec_version": "1.0",
        "architecture": described["architecture"]["backbone"],
        "num_classes": len(classes),
        "class_names": classes,
        "patch_size_pixels": size_px,
        "spacing_um_px": described["input"]["mpp"],
        "transform": [
            {"name": "Resize", "arguments": {"size": size_px}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": mean, "std": std}},
        ],
    }
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps(config))
    with torch.no_grad():
        traced = torch.jit.trace(PlainNetwork(bundle), torch.zeros(1, 3, size_px, size_px))  # type: ignore[no-untyped-call]
    traced.save(out / "model.pt")


if __name__ == "__main__":
    main()
