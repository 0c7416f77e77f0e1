"""Names in pictures: a formula is text, what steers a terminal an escape, and letters without glyphs are said."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from histo.report.contact_sheet import draw_contact_sheet
from histo.report.letters import SAID
from histo.report.picture import write_picture


@pytest.mark.parametrize("name", ["$x^{$", "$x_{", "\\frac$$", "a\x1b[2Jb", "\u202egnp.exe", "two\nlines", "\udcff"])
def test_any_name_can_stand_anywhere_in_a_picture(name: str, tmp_path: Path) -> None:
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.plot([1, 2], [1, 1000], label=name)
    axes.set_yscale("log")
    axes.set_title(name)
    axes.set_ylabel(name)
    axes.set_xticks([1, 2], [name, "other"])
    axes.text(1, 1, name)
    figure.suptitle(name)
    figure.legend()

    write_picture(figure, tmp_path / "a.png", dpi=50)

    shown = {text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)}
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (320, 240)
    assert all(character.isprintable() or character == "\n" for text in shown for character in text)
    powers = [text for text in figure.findobj(Text) if _shown(text).startswith("$\\mathdefault{10^")]
    assert powers, "powers beside an axis stay powers"
    assert all(isinstance(text, Text) and text.get_parse_math() for text in powers), "and are drawn as such"


def _shown(text: object) -> str:
    return text.get_text() if isinstance(text, Text) else ""


@pytest.mark.parametrize(
    ("name", "shown"),
    [("肿瘤", "ZhongLiu"), ("종양", "JongYang"), ("がん", "gan"), ("มะเร็ง", "maerng"), ("Żółć", "Żółć")],
)
@pytest.mark.parametrize("layout", ["constrained", None])
def test_names_without_glyphs_are_transliterated_everywhere_and_the_picture_says_so(
    name: str, shown: str, layout: str | None, tmp_path: Path
) -> None:
    figure = Figure(layout=layout)
    axes = figure.subplots()
    axes.plot([1, 2], [1, 2], label=name)
    axes.set_title(f"{name} (TUM)")
    axes.set_xticks([1, 2], [name, "other"])
    figure.legend()

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a glyph that is missing
        write_picture(figure, tmp_path / "a.png", dpi=50)

    texts = [_shown(text) for text in figure.findobj(Text)]
    assert {shown, f"{shown} (TUM)"} <= set(texts)
    assert texts.count(SAID) == (shown != name)


def test_a_contact_sheet_transliterates_too(tmp_path: Path) -> None:
    volume = np.zeros((1, 2, 32, 32), np.uint8)
    for name, series, title in (("a", "ZhongLiu", "T"), ("b", "肿瘤", "T"), ("c", "ZhongLiu", "T\n")):
        draw_contact_sheet(volume, [series], title, tmp_path / f"{name}.png")

    plain, chinese = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "ab")
    np.testing.assert_array_equal(chinese[:32, : plain.shape[1]], plain[:32, : chinese.shape[1]])
    assert chinese.shape[0] > plain.shape[0], "a line more says so"
