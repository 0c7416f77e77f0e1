"""The job that prepares tile tables."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from histo.cli import main
from histo.learn.data.inspection import inspect_images
from histo.learn.data.source import Source, read_sources
from histo.pipelines.tiles import job as tile_table_job

pytestmark = pytest.mark.usefixtures("joined_ray")


def make_folder(root: Path, count: int, broken: int = 0) -> Path:
    random = np.random.default_rng(0)
    for name in ("B", "A"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02d}.{'jpg' if i % 2 else 'png'}")
    for i in range(broken):
        (root / "A" / f"broken{i}.png").write_bytes(b"not a picture")
    return root


def make_manifest(root: Path, count: int) -> Path:
    make_folder(root, count)
    rows = [
        f"B/{i:02d}.{'jpg' if i % 2 else 'png'},{'ADI' if i % 3 else 'B'},p{i // 4},{'test' if i < 2 else ''}"
        for i in range(count)
    ]
    (root / "list.csv").write_text("\n".join(["path,label,group,split", *rows]) + "\n")
    return root / "list.csv"


def assert_equal_sources(one: Source, other: Source) -> None:
    """Equal in everything that training and evaluation see."""
    assert (one.classes, one.names, one.cases) == (other.classes, other.names, other.cases)
    for i in range(len(one.cases)):
        np.testing.assert_array_equal(one.images.load(i), other.images.load(i))
    assert inspect_images(one) == inspect_images(other)
    assert inspect_images(one).fingerprint(one) == inspect_images(other).fingerprint(other)


def test_a_table_reads_as_the_sources_it_was_made_of(
    tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_table_job, "_SHARD", 16)
    data = [make_manifest(tmp_path / "m", 12), make_folder(tmp_path / "folder", 9), tiles]
    flags = [flag for path in data for flag in ("--data", str(path))]

    code = main(
        ["prepare", "tiles", *flags, "--classes", "ADI,A,B", "--workers", "2", "--out", str(tmp_path / "table")]
    )

    record = json.loads((tmp_path / "table" / "run.json").read_text())
    original, table = read_sources(data, ["ADI", "A", "B"]), read_sources([tmp_path / "table"])
    parts = sorted((tmp_path / "table").glob("*.parquet"))
    assert code == 0
    assert_equal_sources(original, table)
    assert [part.name for part in parts] == [f"part-{i:05d}.parquet" for i in range(5)]
    assert pq.read_metadata(parts[0]).num_row_groups == 4
    assert (record["n_cases"], record["broken"], record["exit_code"]) == (66, [], 0)
    assert (record["other_files"], record["linked_folders"]) == (dict(original.others), 0)
    assert record["data_fingerprint"] == inspect_images(original).fingerprint(original)


def test_broken_images_are_left_out_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_folder(tmp_path / "folder", 9, broken=2)
    (data / "A" / "film.gif").touch()
    command = ["prepare", "tiles", "--data", str(data), "--out", str(tmp_path / "table")]

    refused = main(command)
    shown, left = capsys.readouterr(), list((tmp_path / "table").glob("*.parquet"))
    listed = json.loads((tmp_path / "table" / "run.json").read_text())
    code = main([*command, "--max-broken", "0.1"])

    record = json.loads((tmp_path / "table" / "run.json").read_text())
    original, table = read_sources([data]), read_sources([tmp_path / "table"])
    assert (refused, left, listed["exit_code"], len(listed["broken"])) == (2, [], 2, 2)
    assert "2 of 20 images cannot be used, more than --max-broken 0.01 allows" in shown.err
    assert shown.out.startswith("20 images of 2 classes (and other files: 1 .gif)\n")
    assert code == 0
    assert "broken1.png: not a readable image" in capsys.readouterr().out
    assert [Path(error.split(":")[0]).name for error in record["broken"]] == ["broken0.png", "broken1.png"]
    assert_equal_sources(original.select(inspect_images(original).usable()), table)
    assert inspect_images(original).fingerprint(original) == inspect_images(table).fingerprint(table)
    assert main([*command, "--max-broken", "0.1"]) == 2
    assert "already holds a table" in capsys.readouterr().err
