"""The damaged slides that other tests read."""

from pathlib import Path

from helpers.mutated_slides import EXTENSIONS, KINDS, fabricated, mutated


def test_the_same_seed_damages_alike_and_another_one_otherwise(tmp_path: Path) -> None:
    sources = fabricated(tmp_path / "sources")

    first, again, other = (
        [(path.name, path.read_bytes()) for path in mutated(sources, tmp_path / name, len(KINDS), seed)]
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )

    assert first == again
    assert len(set(first) - set(other)) > len(KINDS) / 2


def test_every_kind_is_there_and_does_what_it_says(tmp_path: Path) -> None:
    sources = {path.stem: path.read_bytes() for path in fabricated(tmp_path / "sources")}

    copies = mutated(sorted((tmp_path / "sources").iterdir()), tmp_path / "copies", len(KINDS), seed=1)

    for (number, name), path in zip(enumerate(KINDS), copies, strict=True):
        stem = path.stem.removeprefix(f"{number:03d}_{name}_")
        assert (path.read_bytes() == sources[stem]) == (name in EXTENSIONS), path.name
