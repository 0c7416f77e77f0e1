"""What a figure was measured on: `python benchmarks/machine.py`."""

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "histo", "ray", "torch", "openvino", "timm", "openslide-python", "openslide-bin",
    "tifffile", "imagecodecs", "numpy",
)  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def describe(packages: tuple[str, ...] = PACKAGES) -> str:
    """Return the machine and the versions as a list in Markdown. Linux only."""
    lines = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    known = {name.strip(): value.strip() for name, value in lines.items()}
    flags = [flag for flag in FLAGS if flag in known.get("flags", "").split()]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return "\n".join(
        [
            f"- {known.get('model name', platform.processor())}, {len(os.sched_getaffinity(0))} cores, "
            f"{memory_gib:.0f} GiB; {', '.join(flags) or 'no vector extensions'}",
            f"- Linux {platform.release()}, Python {platform.python_version()}",
            f"- {', '.join(f'{name} {_version(name)}' for name in packages)}",
        ]
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    print(describe())
