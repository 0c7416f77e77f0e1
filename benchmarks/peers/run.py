"""`make bench-peers`: WSInfer 0.6.1, TIAToolbox 2.1.3 and histo on the same slide with the same ResNet-18, float32.

Each tool has a virtual environment of its own below `--envs`, made where there is none (13 GB together). Rounds are
interleaved and figures are medians; all count the whole process and its children. Linux only.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import machine  # noqa: E402 -- these lie beside this folder
from cost import Cost, measure  # noqa: E402
from fixture import RESNET18, make_bundle, make_slide  # noqa: E402
from job import HEADER, Job, label  # noqa: E402
from peer_environment import ENVS, make_environment  # noqa: E402

PACKAGES = {
    "wsinfer": ("wsinfer[openslide]==0.6.1", "openslide-bin", "zarr<3", "timm", "torch==2.14.1", "torchvision==0.29.1"),
    "tiatoolbox": ("tiatoolbox==2.1.3", "torch==2.12.1", "torchvision==0.27.1"),
}
FEW_PX = 2048
ENVIRONMENT = {"PYTHONPATH": str(HERE.parent), "WSINFER_FORCE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
Label = Callable[[Path, Path], tuple[Cost, int]]
"""Labels a slide, given a folder for its results; returns what that cost, and how many tiles there were."""


def with_tool(python: Path, script: str, model: Path, slide: Path, out: Path) -> tuple[Cost, int]:
    """Label with another tool; its script prints how many tiles there were."""
    cost = measure([python, HERE / script, slide.parent, model, out], ENVIRONMENT)
    return cost, int(cost.output.split()[-1])


def with_histo(model: Path, tiles: dict[Path, int], slide: Path, out: Path) -> tuple[Cost, int]:
    """Label with histo."""
    return label(slide, model, out, tiles=tiles[slide]), tiles[slide]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--envs", type=Path, default=ENVS)
    parser.add_argument("--edge-px", type=int, default=40_000, help="of the slide")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pythons = {name: make_environment(options.envs / name, packages) for name, packages in PACKAGES.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (few, few_places), (slide, places) = (
            make_slide(folder / kind, edge_px) for kind, edge_px in (("few", FEW_PX), ("slide", options.edge_px))
        )
        bundle = make_bundle(folder / "bundle", RESNET18)
        measure([pythons["wsinfer"], HERE / "wsinfer_model.py", bundle, folder / "wsinfer"], ENVIRONMENT)
        tools: dict[str, Label] = {
            "WSInfer 0.6.1": partial(with_tool, pythons["wsinfer"], "wsinfer_slide.py", folder / "wsinfer"),
            "TIAToolbox 2.1.3": partial(with_tool, pythons["tiatoolbox"], "tiatoolbox_slide.py", bundle),
            "histo": partial(with_histo, bundle, {few: len(few_places), slide: len(places)}),
        }
        jobs: dict[str, Job] = {}
        for number in range(options.rounds):
            for tool, run in tools.items():
                few_cost, few_tiles = run(few, folder / f"{tool} few {number}")
                cost, tiles = run(slide, folder / f"{tool} {number}")
                job = jobs.setdefault(tool, Job(f"{tool}, {RESNET18}, float32", few_tiles, tiles))
                job.few.append(few_cost)
                job.many.append(cost)
            print(f"round {number + 1}", file=sys.stderr, flush=True)
    print(f"{machine.describe()}\n- medians of {options.rounds} rounds\n\n{HEADER}")
    for job in jobs.values():
        print(job.row())
    ours = jobs.pop("histo")
    print("\n| tool | its CPU per tile over histo's, whole process | without the start |\n|---|---|---|")
    for tool, job in jobs.items():
        whole = job.cpu_s_per_tile(job.tiles) / ours.cpu_s_per_tile(ours.tiles)
        print(f"| {tool} | {whole:.2f} | {job.steady_cpu_s / ours.steady_cpu_s:.2f} |")


if __name__ == "__main__":
    main()
