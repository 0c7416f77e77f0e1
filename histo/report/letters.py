"""Names as pictures can show them: transliterated if need be, and shortened."""

from functools import cache
from pathlib import Path

from anyascii import anyascii
from matplotlib.font_manager import FontProperties, findfont, get_font

from histo.printable import printable_lines

SAID = "names are transliterated: the font has no glyphs for them"
"""A line for pictures of which that is so."""


@cache
def font_file() -> Path:
    """Return the font of pictures: matplotlib's own, DejaVu Sans, unless a `matplotlibrc` names another one.

    Its own has the letters of all of Europe, and none of China, Japan and Korea.
    """
    return Path(findfont(FontProperties()))


def has_glyphs(text: str) -> bool:
    """Whether the font has all characters of a text."""
    return _glyphs().issuperset(printable_lines(text))


def legible(text: str) -> str:
    """Return a text as it can be drawn: what the font has not is transliterated, and control characters are escapes.

    Examples:
        >>> legible("$x$"), legible("肿瘤"), legible("종양 (TUM)")
        ('$x$', 'ZhongLiu', 'JongYang (TUM)')
    """
    known = _glyphs()
    return "".join(letter if letter in known else anyascii(letter) for letter in printable_lines(text))


def shorten(name: str, longest: int = 26) -> str:
    """Take the middle out of a long name.

    Examples:
        >>> shorten("TUM/TUM-TCGA-CVATFAAT.tif"), shorten("crc-val-he-7k/TUM/TUM-TCGA-CVATFAAT.tif")
        ('TUM/TUM-TCGA-CVATFAAT.tif', 'crc-val-he-7…CVATFAAT.tif')
    """
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


@cache
def _glyphs() -> frozenset[str]:
    return frozenset(map(chr, get_font(font_file()).get_charmap())) | {"\n"}
