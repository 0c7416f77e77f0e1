"""Names in pictures: a formula is text, and what steers a terminal is shown as an escape."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

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
