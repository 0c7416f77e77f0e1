"""Colours of classes, for people with any colour vision."""

from collections.abc import Mapping, Sequence

from matplotlib.colors import to_hex, to_rgb

from histo.errors import UsageError
from histo.spec.names import nearest

MUTED = ("#CC6677", "#332288", "#DDCC77", "#117733", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499")
"""Paul Tol's muted scheme, made for colour-blind readers (SRON/EPS/TN/09-002)."""
GLASS = "#DDDDDD"
"""The scheme's colour for what is no data."""
_NAMES_OF_GLASS = ("back", "background", "glass")
_LIGHTER = (0.0, 0.5, -0.4)
"""From the tenth class on colours come again, nearer to white, then to black."""


def class_colours(classes: Sequence[str], chosen: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give every class its colour, `#RRGGBB`: the chosen one, or its place's in the scheme. Background is grey.

    Args:
        classes: All classes, in order.
        chosen: Colours of some of them, as matplotlib writes colours.

    Raises:
        UsageError: If a chosen one is of no class, or no colour.

    Examples:
        >>> class_colours(["BACK", "STR", "TUM"], {"TUM": "red"})
        {'BACK': '#DDDDDD', 'STR': '#CC6677', 'TUM': '#FF0000'}
    """
    chosen = chosen or {}
    for name, colour in chosen.items():
        if name not in classes:
            raise UsageError(f"--colours {name}: no class of these tables{nearest(name, list(classes))}")
        try:
            to_rgb(colour)
        except ValueError:
            raise UsageError(f"--colours {name}: {colour!r} is no colour; give #RRGGBB or a name, as 'red'") from None
    coloured = [name for name in classes if name.lower() not in _NAMES_OF_GLASS]
    return {
        name: to_hex(chosen[name]).upper()
        if name in chosen
        else _colour(coloured.index(name))
        if name in coloured
        else GLASS
        for name in classes
    }


def _colour(place: int) -> str:
    round_, number = divmod(place, len(MUTED))
    share = _LIGHTER[round_ % len(_LIGHTER)]
    goal = 1.0 if share > 0 else 0.0
    red, green, blue = (part + (goal - part) * abs(share) for part in to_rgb(MUTED[number]))
    return to_hex((red, green, blue)).upper()
