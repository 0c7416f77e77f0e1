"""Read tiles with cuCIM or libvips, in their environment, and average them as histo does.

`python read_tiles.py cucim|vips SLIDE PLACES OUT`, with the repository on PYTHONPATH. PLACES has the first pixel
`(x, y)` of each tile in the target grid, the edge of all, and the ratio to level 0, which is read. The tiles go to OUT,
and the CPU-seconds that they took, imports left out, are printed.
"""

import sys
import time
from collections.abc import Callable

import numpy as np

from histo.resample import Pixels, Window, resample

WARM_UP = 32
"""Tiles that are read before, so that what is done once in a process does not count."""
Read = Callable[[int, int, int, int], Pixels]
"""Reads a rectangle of level 0: left, top, width and height."""
Open = Callable[[str], Read]
"""Opens a slide's file."""


def cucim() -> Open:
    """Return what opens a slide with cuCIM, on the CPU."""
    from cucim import CuImage  # noqa: PLC0415 -- of this environment or of another one

    def open_slide(path: str) -> Read:
        image = CuImage(path)
        return lambda left, top, width, height: np.asarray(image.read_region((left, top), (width, height), level=0))

    return open_slide


def vips() -> Open:
    """Return what opens a slide with libvips, which keeps some decoded blocks of its own accord."""
    import pyvips  # noqa: PLC0415 -- likewise

    def open_slide(path: str) -> Read:
        image = pyvips.Image.new_from_file(path, access="random")
        region = pyvips.Region.new(image)
        return lambda left, top, width, height: np.frombuffer(region.fetch(left, top, width, height), np.uint8).reshape(
            height, width, image.bands
        )

    return open_slide


def tile(read: Read, columns: Window, rows: Window) -> Pixels:
    """Read one tile."""
    (left, right), (top, bottom) = columns.source_span(), rows.source_span()
    return resample(read(left, top, right - left, bottom - top), columns, rows)


def main() -> None:
    """Read all tiles once, and print what that took."""
    name, slide, places, out = sys.argv[1:]
    with np.load(places) as asked:
        origins, size_px, ratio = asked["origins"].tolist(), int(asked["size_px"]), float(asked["ratio"])
    open_slide = {"cucim": cucim, "vips": vips}[name]()
    for part in (origins[:WARM_UP], origins):
        start = time.process_time()
        read = open_slide(slide)
        tiles = np.stack([tile(read, Window(x, size_px, ratio), Window(y, size_px, ratio)) for x, y in part])
        seconds = time.process_time() - start
    print(seconds)
    np.save(out, tiles)


if __name__ == "__main__":
    main()
