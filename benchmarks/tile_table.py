"""Tile tables: what reading one image costs, by images per row group. `python benchmarks/tile_table.py`.

4,096 files of 20 to 100 kB (random bytes, of which nothing can be compressed) in one file with the columns of a tile
table, uncompressed, with page checksums, in the page cache; read one by one in random order by `TableImages`, then all
in order. The list is what reading a source reads: all columns but the images. For comparison, what decoding costs.
"""

import io
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from histo import tables
from histo.demo.textures import paint
from histo.learn.data.images import FileImages, decode
from histo.learn.data.tile_table import TableImages

COUNT = 4096
READ = 800
ROUNDS = 3


def table() -> pa.Table:
    """Rows as `prepare tiles` writes them."""
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = [
        {
            "case_id": f"TUM/TUM-{i:08d}.tif",
            "source": "tiles",
            "label": "TUM",
            "content_hash": f"{i:064d}",
            "size_px": 224,
            "image": random.bytes(int(random.integers(20_000, 100_000))),
        }
        for i in range(COUNT)
    ]
    return tables.rows_table(rows, tables.schema(tables.TILE_IMAGES))


def measure(path: Path) -> list[float]:
    """Return ms to open the file, µs per image in random order, images/s in order, ms to read the list, MB."""
    images, start = TableImages([path], [COUNT]), time.perf_counter()
    images.encoded(0)
    opened, start = time.perf_counter() - start, time.perf_counter()
    for i in np.random.default_rng(1).permutation(COUNT)[:READ]:
        images.encoded(int(i))
    single, start = (time.perf_counter() - start) / READ, time.perf_counter()
    for i in range(COUNT):
        images.encoded(i)
    rate, start = COUNT / (time.perf_counter() - start), time.perf_counter()
    pq.ParquetFile(path).read(["case_id", "source", "label", "group", "split", "content_hash", "size_px"])
    return [1e3 * opened, 1e6 * single, rate, 1e3 * (time.perf_counter() - start), path.stat().st_size / 1e6]


def plain_file() -> float:
    """Return µs to read one of many files of 60 kB, in random order."""
    with tempfile.TemporaryDirectory() as folder:
        paths = tuple(Path(folder) / f"TUM-{i:08d}.tif" for i in range(READ))
        for path in paths:
            path.write_bytes(bytes(60_000))
        images, start = FileImages(paths), time.perf_counter()
        for i in np.random.default_rng(1).permutation(READ):
            images.encoded(int(i))
        return 1e6 * (time.perf_counter() - start) / READ


def decoding(kind: str) -> float:
    """Return µs to decode a fabricated tile of 224 px."""
    file = io.BytesIO()
    Image.fromarray(paint("TUM", 224, 224, np.random.default_rng(0))).save(file, kind)
    start = time.perf_counter()
    for _ in range(100):
        decode("tile", file.getvalue())
    return 1e4 * (time.perf_counter() - start)


def main() -> None:
    """Print one table."""
    rows, sizes = table(), (1, 4, 8, 16, 32, 64, 1024)
    with tempfile.TemporaryDirectory() as folder:
        found: dict[int, list[list[float]]] = {size: [] for size in sizes}
        for size in sizes:
            pq.write_table(
                rows, Path(folder) / f"{size}", row_group_size=size, compression="none", use_dictionary=False,
                write_statistics=False, write_page_checksum=True,
            )  # fmt: skip
        for _ in range(ROUNDS):
            for size in sizes:
                found[size].append(measure(Path(folder) / f"{size}"))
    print(f"{platform.machine()}, Python {platform.python_version()}, pyarrow {pa.__version__}; medians of {ROUNDS}")
    print("| images per row group | open, ms | one image, µs | in order, images/s | list, ms | file, MB |")
    print("|---|---|---|---|---|---|")
    for size, rounds in found.items():
        opened, single, rate, listed, megabytes = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"| {size} | {opened:.1f} | {single:.0f} | {rate:.0f} | {listed:.0f} | {megabytes:.1f} |")
    print(f"reading a plain file: {plain_file():.0f} µs")
    print(f"decoding a tile of 224 px: JPEG {decoding('JPEG'):.0f} µs, PNG {decoding('PNG'):.0f} µs")


if __name__ == "__main__":
    main()
