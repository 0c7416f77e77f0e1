"""Names of settings as fields and as flags, and the nearest to a wrong one."""

import difflib
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def field_names(spec: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """List every field of a settings class, nested ones dotted.

    Examples:
        >>> class Tiling(BaseModel):
        ...     stride_px: int = 224
        >>> class Label(BaseModel):
        ...     workers: int = 1
        ...     tiling: Tiling = Tiling()
        >>> list(field_names(Label))
        ['workers', 'tiling', 'tiling.stride_px']
    """
    for name, field in spec.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from field_names(field.annotation, f"{prefix}{name}.")


def settings(spec: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """List the fields that have a flag, by name, nested ones dotted; a section has none of its own."""
    for name, field in spec.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def flag_name(name: str) -> str:
    """Return the flag of a field.

    Examples:
        >>> flag_name("tiling.stride_px")
        '--tiling.stride-px'
    """
    return f"--{name.replace('_', '-')}"


def field_name(flag: str) -> str:
    """Return the field of a flag.

    Examples:
        >>> field_name("--tiling.stride-px")
        'tiling.stride_px'
    """
    return flag.removeprefix("--").replace("-", "_")


def nearest(name: str, valid: list[str]) -> str:
    """Say which names may be meant: all whose last part is the same or nearly so, or else the most similar one."""
    section, leaf = _parts(name)
    leaves = {_parts(other)[1] for other in valid}
    near = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75)
    best = [other for other in valid if near and _parts(other)[1] == near[0]]
    best = [other for other in best if section and _parts(other)[0] == section] or best
    plain = {other.lstrip("-"): other for other in valid}
    best = best or [plain[near] for near in difflib.get_close_matches(name.lstrip("-"), plain, n=1, cutoff=0.5)]
    return f"; did you mean {' or '.join(best)}?" if best else f"; valid names: {', '.join(sorted(valid)[:12])}"


def _parts(name: str) -> tuple[str, str]:
    """Split a flag or key into its section and its last part, both written alike."""
    section, _, leaf = name.lstrip("-").replace("_", "-").rpartition(".")
    return section, leaf
