"""The picture of a volume: which way round it is, and that it is small."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo.report.contact_sheet import draw_contact_sheet


def coded(n_series: int, slices: int, edge_px: int) -> np.ndarray:
    """Slices of grey, brighter the more superior they are, with a dark corner: anterior, right."""
    volume = np.zeros((n_series, slices, edge_px, edge_px), np.uint8)
    volume += np.linspace(60, 120, slices, dtype=np.uint8)[:, None, None]
    half = edge_px // 2
    volume[:, :, half:, half:] = 0  # rows run to anterior, columns to the right
    return volume


def draw(volume: np.ndarray, tmp_path: Path) -> np.ndarray:
    names = [f"series {i}" for i in range(len(volume))]
    draw_contact_sheet(volume, names, "A/p/s", tmp_path / "sheets" / "s.png")
    return np.asarray(Image.open(tmp_path / "sheets" / "s.png"))


def test_anterior_is_on_top_and_the_patients_right_on_the_left(tmp_path: Path) -> None:
    sheet = draw(coded(1, 12, 64), tmp_path)

    first = sheet[32:96, 66:130]  # below the lines of text, the second slice, which has no marks
    assert first[:32, :32].max() == 0
    assert first[:32, 32:].min() > 50
    assert first[32:].min() > 50


def test_slices_run_from_inferior_to_superior_line_by_line_and_series_below_each_other(tmp_path: Path) -> None:
    sheet = draw(coded(2, 12, 64), tmp_path)

    def brightness(block: int, line: int, place: int) -> int:
        top = 16 + block * (16 + 2 * 66) + 16 + line * 66
        return int(sheet[top + 50, place * 66 + 32])

    for block in (0, 1):
        seen = [brightness(block, line, place) for line, places in ((0, 10), (1, 2)) for place in range(places)]
        assert seen == sorted(seen)
        assert seen[0] < seen[-1]


@pytest.mark.parametrize(("edge_px", "expected"), [(512, 128), (96, 96)])
def test_slices_are_made_small_and_never_larger(edge_px: int, expected: int, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    volume = random.integers(0, 256, (3, 20, edge_px, edge_px), np.uint8)

    sheet = draw(volume, tmp_path)

    assert sheet.shape[1] == 10 * (expected + 2)
    assert (tmp_path / "sheets" / "s.png").stat().st_size < 0.8 * sheet.size, "fewer grey levels than a byte has"


def test_a_name_for_each_series_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        draw_contact_sheet(coded(2, 3, 8), ["one"], "s", tmp_path / "s.png")


def test_letters_of_other_languages_are_drawn_each_in_its_own_way(tmp_path: Path) -> None:
    def title(text: str) -> bytes:
        draw_contact_sheet(coded(1, 4, 64), ["s"], text, tmp_path / "s.png")
        return np.asarray(Image.open(tmp_path / "s.png"))[:16].tobytes()

    assert len({title(letter) for letter in "uüßřŁЖΩ"}) == 7
