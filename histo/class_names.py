"""Names of classes and groups, as people and programs write them."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from histo.errors import UsageError

MOST_LETTERS = 200
"""Of the name of a class."""
_UNPRINTABLE = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
"""Unicode's categories of what moves a cursor, hides, or has no form of its own."""
_WHOLE = re.compile(r"(0|[1-9][0-9]{0,8})(\.0+)?")


def written_alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two names that differ only in blanks, in case, or in how Unicode writes them; None if there are none.

    Examples:
        >>> written_alike(["TUM", "STR", "TUM "])
        ('TUM', 'TUM ')
    """
    first: dict[str, str] = {}
    for name in names:
        plain = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        if first.setdefault(plain, name) != name:
            return first[plain], name
    return None


def is_name(text: str) -> bool:
    r"""Whether a text can be the name of a class: not blank, not endless, of printable characters.

    Examples:
        >>> is_name("TUM"), is_name(" "), is_name("TUM\n"), is_name("T" * 201)
        (True, False, False, False)
    """
    known = {unicodedata.category(character) for character in text}
    return bool(text.strip()) and len(text) <= MOST_LETTERS and not known & _UNPRINTABLE


def check_names(where: str, names: Iterable[str]) -> None:
    """Make sure that each class has a name, written in one way, without a blank that nobody sees before or behind it.

    Raises:
        UsageError: If one is; `where` begins its message.
    """
    distinct = sorted(set(names))
    for name in distinct:
        if not is_name(name):
            raise UsageError(
                f"{where}: {name[:60]!a} is no name of a class; give 1 to {MOST_LETTERS} printable characters"
            )
    pair = written_alike(distinct)
    if pair is not None:
        raise UsageError(
            f"{where}: labels {pair[0]!r} and {pair[1]!r} differ only in blanks or case, and would be two classes; "
            "write them alike"
        )
    blank = next((name for name in distinct if name != name.strip()), None)
    if blank is not None:
        raise UsageError(f"{where}: label {blank!r} begins or ends with a blank; remove it")


def check_groups(where: str, groups: Iterable[str | None]) -> None:
    """Make sure that no group is written in two ways, since it would be two, and could be on both sides of a split.

    Blanks within a name count: `1 1` and `11` are two groups.

    Raises:
        UsageError: If one is; `where` begins its message.
    """
    first: dict[str, str] = {}
    for group in sorted({group for group in groups if group is not None}):
        known = first.setdefault(unicodedata.normalize("NFKC", group).casefold().strip(), group)
        if known != group:
            raise UsageError(
                f"{where}: groups {known!r} and {group!r} differ only in blanks or case, and would be two patients; "
                "write them alike, or rename one of them"
            )


def whole_numbers(texts: Sequence[str]) -> list[int] | None:
    """Read labels that are numbers: all of them whole, without leading zeros; pandas may have written `1` as `1.0`.

    Examples:
        >>> whole_numbers(["0", "12"]), whole_numbers(["0.0", "1.0"])
        ([0, 12], [0, 1])
        >>> whole_numbers(["0", "01"]) is whole_numbers(["0.5", "1.0"]) is None
        True
    """
    matches = [_WHOLE.fullmatch(text) for text in texts]
    return [int(match[1]) for match in matches if match] if all(matches) else None
