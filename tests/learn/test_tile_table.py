import pickle
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from histo.errors import ImageError, UsageError
from histo.learn.data.images import ArrayImages, Images
from histo.learn.data.inspection import examine, hash_pixels, inspect_images
from histo.learn.data.source import Source, read_sources
from histo.learn.data.tile_table import TableFooter, TableImages, write_part

COUNT = 40


def pictures() -> ArrayImages:
    """Images of noise, so that their files are of some size, whose first pixel is their number."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 16, 16, 3), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(COUNT)
    return ArrayImages((pixels,))


def write_table(
    folder: Path, parts: int = 2, classes: tuple[str, ...] = ("TUM", "ADI"), origins: tuple[str, ...] = ("tiles",)
) -> Path:
    images, each = pictures(), COUNT // parts
    for part in range(parts):
        rows = []
        for i in range(part * each, (part + 1) * each):
            content = examine(images, i, "")
            assert not isinstance(content, str)
            rows.append(
                {
                    "case_id": f"c{i}",
                    "source": origins[i % len(origins)],
                    "label": classes[i % 2],
                    "group": f"p{i // 4}",
                    "split": "test" if i % 5 == 0 else None,
                    "content_hash": content.content_hash,
                    "size_px": content.edge_px,
                    "image": images.encoded(i),
                }
            )
        write_part(folder / f"part-{part:05d}.parquet", rows, TableFooter(classes, parts))
    return folder


def numbers(images: Images, order: list[int]) -> list[int]:
    return [int(images.load(i)[0, 0, 0]) for i in order]


def test_a_tile_table_reads_as_what_was_written(tmp_path: Path) -> None:
    source = read_sources([write_table(tmp_path / "table")])

    assert source.classes == ("TUM", "ADI")
    assert [case.case_id for case in source.cases] == [f"c{i}" for i in range(COUNT)]
    assert source.labels().tolist() == [i % 2 for i in range(COUNT)]
    assert [case.group for case in source.cases] == [f"p{i // 4}" for i in range(COUNT)]
    assert [case.split for case in source.cases] == ["test" if i % 5 == 0 else None for i in range(COUNT)]
    for i in range(COUNT):
        np.testing.assert_array_equal(source.images.load(i), pictures().load(i))


def test_a_table_of_several_sources_keeps_their_names(tmp_path: Path) -> None:
    table = write_table(tmp_path / "table", origins=("a", "b"))
    np.savez(tmp_path / "t.npz", data=np.zeros((2, 4, 4, 3), np.uint8), labels=np.array(["ADI", "TUM"]))

    alone, beside = read_sources([table]), read_sources([table, tmp_path / "t.npz"])

    assert (alone.names, alone.cases[1].source, alone.cases[1].case_id) == (("a", "b"), "b", "c1")
    assert beside.names == ("table/a", "table/b", "t.npz")
    assert (beside.cases[1].source, beside.cases[1].case_id) == ("table/b", "table/c1")


def test_a_survey_takes_hashes_from_the_table(tmp_path: Path) -> None:
    table = write_table(tmp_path / "table")
    source = read_sources([table])
    for part in table.iterdir():
        part.rename(part.with_suffix(".away"))

    found = inspect_images(source)

    assert found.content_hashes == tuple(hash_pixels(pictures().load(i)) for i in range(COUNT))
    assert set(found.edges_px) == {16}


def test_a_foreign_table_is_decoded_for_its_hashes_whatever_columns_it_has(tmp_path: Path) -> None:
    columns = {"image": [pictures().encoded(i) for i in (0, 1)], "label": ["A", "B"]}
    foreign = {"content_hash": ["x", "y"], "size_px": [1, 1], "case_id": ["a", "b"], "source": ["s", "s"]}
    pq.write_table(pa.table(columns | foreign), tmp_path / "t.parquet")

    found = inspect_images(read_sources([tmp_path / "t.parquet"]))

    assert found.content_hashes == tuple(hash_pixels(pictures().load(i)) for i in (0, 1))


@pytest.mark.slow
@given(st.lists(st.integers(0, COUNT - 1), max_size=60), st.sampled_from([1, 3, 7, 100]))
def test_any_order_of_reading_gives_the_right_images(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], rows: int
) -> None:
    folder = tmp_path_factory.mktemp("table")
    paths = [folder / "a.parquet", folder / "b.parquet"]
    for path, members in zip(paths, (range(25), range(25, COUNT)), strict=True):
        table = pa.table({"image": [pictures().encoded(i) for i in members]})
        pq.write_table(table, path, row_group_size=rows, compression="zstd")

    assert numbers(TableImages(paths, [25, COUNT - 25]), order) == order


def test_an_image_of_large_row_groups_costs_two_of_them_in_memory(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [pictures().encoded(i) for i in range(COUNT)]}), tmp_path / "t", row_group_size=8)
    images = TableImages([tmp_path / "t"], [COUNT])

    numbers(images, list(range(COUNT)))

    assert len(images._files.kept) == 2


def test_threads_and_pickled_copies_read_the_same(tmp_path: Path) -> None:
    images = read_sources([write_table(tmp_path / "table")]).images
    orders = [np.random.default_rng(i).permutation(COUNT).tolist() for i in range(4)]
    seen: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=lambda i=i: seen.update({i: numbers(images, orders[i])})) for i in range(len(orders))
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    copy = pickle.loads(pickle.dumps(images))

    assert [seen[i] for i in range(4)] == orders
    assert numbers(copy, orders[0]) == orders[0]


class Numbers:
    """The numbers of a table's images, for loader processes."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, index: int) -> int:
        return numbers(self.source.images, [index])[0]

    def __len__(self) -> int:
        return COUNT


def test_loader_processes_read_a_table_that_their_parent_has_open(tmp_path: Path) -> None:
    source = read_sources([write_table(tmp_path / "table")])
    assert numbers(source.images, [0, 39]) == [0, 39]

    loader = DataLoader(Numbers(source), batch_size=4, num_workers=2)  # type: ignore[arg-type] # it has what is needed

    assert [int(number) for batch in loader for number in batch] == list(range(COUNT))


def test_a_damaged_page_is_an_error_and_not_wrong_pixels(tmp_path: Path) -> None:
    table = write_table(tmp_path / "table", parts=1)
    part = table / "part-00000.parquet"
    data, image = bytearray(part.read_bytes()), pictures().encoded(5)
    place = data.index(image) + len(image) // 2
    data[place] ^= 1
    source = read_sources([table])
    part.write_bytes(data)

    with pytest.raises(ImageError, match=r"part-00000\.parquet#5: not readable .*CRC"):
        source.images.load(5)
    assert numbers(source.images, [39]) == [39]


def test_a_null_image_is_an_image_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([None], pa.binary())}), tmp_path / "t.parquet")

    with pytest.raises(ImageError, match=r"t\.parquet#0: the image is null"):
        TableImages([tmp_path / "t.parquet"], [1]).load(0)


def test_a_table_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path / "table")

    with pytest.raises(UsageError, match=r"part-00000\.parquet: 1 of the 2 parts of a tile table"):
        read_sources([table / "part-00000.parquet"])
    (table / "part-00001.parquet").unlink()
    with pytest.raises(UsageError, match="table: 1 of the 2 parts of a tile table"):
        read_sources([table])


def test_parts_of_two_tables_are_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path / "table")
    write_table(tmp_path / "other", classes=("A", "B"))
    (tmp_path / "other" / "part-00001.parquet").rename(table / "part-00001.parquet")

    with pytest.raises(UsageError, match="parts of several tile tables"):
        read_sources([table])


def test_numbered_labels_of_a_tile_table_can_still_be_named(tmp_path: Path) -> None:
    table = write_table(tmp_path / "table", classes=("0", "1"))

    source = read_sources([table], ["STR", "TUM"])

    assert [source.classes[case.label] for case in source.cases[:3]] == ["STR", "TUM", "STR"]
    assert read_sources([table]).classes == ("0", "1")


def test_a_part_whose_images_are_all_left_out_is_read_over(tmp_path: Path) -> None:
    table = write_table(tmp_path / "table", parts=2)
    write_part(table / "part-00000.parquet", [], TableFooter(("TUM", "ADI"), 2))

    source = read_sources([table])

    assert numbers(source.images, list(range(20))) == list(range(20, 40))
