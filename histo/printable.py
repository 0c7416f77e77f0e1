"""Make text from outside printable: in a terminal, a table, a picture."""

import unicodedata

_CONTROLS = {"Cc", "Cs", "Zl", "Zp"}
"""Of Unicode: controls, halves of characters (bytes that are no text), separators of lines and of paragraphs."""
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What turns the direction of writing, so that a name is shown as another one."""


def printable(text: str) -> str:
    r"""Write control characters as escapes.

    Examples:
        >>> print(printable("a\x1b[2Jb\n\u202egpj.exe"))
        a\x1b[2Jb\n\u202egpj.exe
    """
    return "".join(_escaped(character) if _controls(character) else character for character in text)


def printable_lines(text: str) -> str:
    r"""Write control characters but line feeds as escapes.

    Examples:
        >>> printable_lines("two\nlines\r")
        'two\nlines\\r'
    """
    return "\n".join(printable(line) for line in text.split("\n"))


def _controls(character: str) -> bool:
    return unicodedata.category(character) in _CONTROLS or character in _DIRECTIONS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
