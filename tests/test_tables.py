from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histo import tables
from histo.tables import (
    CASES,
    LABELLED_STUDIES,
    PREDICTIONS,
    PREPARED_STUDIES,
    SLIDES,
    TILE_IMAGES,
    TILES,
    Column,
    rows_table,
    schema,
    write_table,
)

CLASSES = ("TUM", "ADI", "STR")


@pytest.mark.parametrize(
    "columns", [TILES, SLIDES, CASES, PREDICTIONS, TILE_IMAGES, PREPARED_STUDIES, LABELLED_STUDIES]
)
def test_no_table_has_two_columns_of_one_name(columns: Iterable[Column]) -> None:
    names = schema(columns, CLASSES).names

    assert len(set(names)) == len(names)


def test_a_column_per_class_stands_in_the_order_of_the_classes() -> None:
    names = schema(TILES, CLASSES).names

    place = names.index("prob_TUM")
    assert names[place - 1 : place + 4] == ["entropy", "prob_TUM", "prob_ADI", "prob_STR", "status"]


def test_each_kind_of_class_column_is_complete_before_the_next_begins() -> None:
    names = schema(SLIDES, ("A", "B")).names

    assert names[-4:] == ["fraction_A", "fraction_B", "area_mm2_A", "area_mm2_B"]


def test_a_class_column_has_the_type_of_its_declaration() -> None:
    assert schema(TILES, CLASSES).field("prob_STR").type == pa.float32()


def test_metadata_are_keys_of_histo() -> None:
    layout = schema(TILES, CLASSES, {"fingerprint": "abc"})

    assert layout.metadata == {b"histo.fingerprint": b"abc"}


def test_a_row_with_an_unknown_column_is_refused_by_name() -> None:
    layout = schema(TILES, CLASSES)

    with pytest.raises(ValueError, match="prob_MUS"):
        rows_table([{"slide_id": "a.svs"}, {"slide_id": "a.svs", "prob_MUS": 1.0}], layout)


def test_a_column_that_a_row_leaves_out_is_null() -> None:
    layout = schema(TILES, CLASSES)

    table = rows_table([{"slide_id": "a.svs", "tile_index": 7}, {"tile_index": 8, "prob_ADI": 0.5}], layout)

    assert table.schema.equals(layout)
    assert table["slide_id"].to_pylist() == ["a.svs", None]
    assert table["tile_index"].to_pylist() == [7, 8]
    assert table["prob_ADI"].to_pylist() == [None, 0.5]
    assert table["label"].null_count == 2


def test_no_rows_make_an_empty_table_of_the_same_layout() -> None:
    layout = schema(SLIDES, CLASSES)

    table = rows_table([], layout)

    assert (len(table), table.schema) == (0, layout)


def test_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(pa.ArrowInvalid, match="seven"):
        rows_table([{"tile_index": "seven"}], schema(TILES, CLASSES))


def test_a_table_reads_back_as_it_was_written(tmp_path: Path) -> None:
    layout = schema(TILES, CLASSES, {"schema_version": str(tables.SCHEMA_VERSION)})
    table = rows_table([{"slide_id": "ä/s.svs", "tile_index": 3, "x": 448, "prob_TUM": 0.25}], layout)

    write_table(tmp_path / "tiles" / "s.parquet", table)

    read = pq.read_table(tmp_path / "tiles" / "s.parquet", partitioning=None)
    assert read.equals(table)
    assert read.schema.metadata == layout.metadata
    assert [path.name for path in (tmp_path / "tiles").iterdir()] == ["s.parquet"]
