"""Write cli.md and tables.md, and renew the map of docs/architecture.md, from the code: `make reference`."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from upath import UPath

from histo import tables
from histo.cli import _specs
from histo.spec.base import Spec
from histo.spec.names import flag_name, settings
from histo.tables import Column

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ARCHITECTURE = HERE.parent / "architecture.md"

CLI_HEAD = """# Commands and settings

Made by `make reference` from the settings classes; a change belongs there.

`histo JOB [--config FILE.yaml] [--any.field value ...]`, or `python jobs/JOB.py ...`. A flag wins over the file; in the
file the key `tiling.stride_px` is `stride_px` below `tiling:`. A switch is given as `--resume` or `--no-resume`, in the
file as `true` or `false`. A list is given with commas, or by its flag several times; in the file it is `[A, B]`.
**Bold** settings are those that `--help` lists; `--help-all` lists all.
"""

TABLES_HEAD = """# Tables

Made by `make reference` from `histo/tables.py`; a change belongs there.

Every table is a Parquet file (zstd; a tile table's images are not compressed). `<CLASS>` stands for the name of each
class: a table has one such column for each, in the order of the classes. Types are Arrow's.
"""

TABLES = (
    ("Label: a row per tile", "OUT/tiles/<slide_id>.parquet", tables.TILES),
    ("Label: further columns of a tile, with --quality", "OUT/tiles/<slide_id>.parquet", tables.QUALITY),
    ("Label: a row per slide", "OUT/slides.parquet", tables.SLIDES),
    ("Plan: a row per slide", "OUT/plan.parquet", tables.PLAN),
    ("Plan: a row per tile, with --exact", "OUT/plan/<slide_id>.parquet", tables.KEPT_TILES),
    ("Export: a row per region", "OUT/regions/<slide_id>.parquet", tables.REGIONS),
    ("Train: a row per image", "RUN/split.parquet", tables.CASES),
    ("Evaluate: a row per image", "EVALUATION/predictions.parquet", tables.PREDICTIONS),
    ("Cross-validate: a row per image", "OUT/split.parquet", tables.FOLDS),
    ("Cross-validate: a row per image, predicted", "OUT/predictions.parquet", tables.OUT_OF_FOLD),
    ("Tile table: a row per image", "TABLE/part-NNNNN.parquet", tables.TILE_IMAGES),
    ("Tiles cut from slides: a row per tile", "TABLE/part-*.parquet", tables.CUT_TILES),
    ("Tiles cut to images: a row per tile", "OUT/manifest.csv", tables.CUT_FILES),
    ("Prepared studies: a row per study", "PREPARED/studies.parquet", tables.PREPARED_STUDIES),
    ("Labelled studies: a row per study", "OUT/studies.parquet", tables.LABELLED_STUDIES),
)
"""Title, file and columns of every table that a run leaves behind."""

_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
"""Sign of each limit, lower ones first."""
_PLAIN = {int: "whole number", float: "number", str: "text", bool: "switch", Path: "path", UPath: "URI"}


def cli() -> str:
    """Return the page of all commands and settings."""
    return "\n".join([CLI_HEAD, *(_command(name, spec) for name, spec in _specs().items())])


def tables_page() -> str:
    """Return the page of all tables."""
    return "\n".join([TABLES_HEAD, *(_table(*table) for table in TABLES)])


def _command(name: str, spec: type[Spec]) -> str:
    rows = [_setting(key, field, spec.COMMON) for key, field in settings(spec)]
    return "\n".join(
        [
            f"## {name}\n",
            f"{_one_line(spec.__doc__ or '')}\n",
            "| flag | YAML key | value | default | meaning |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _setting(key: str, field: FieldInfo, common: frozenset[str]) -> str:
    flag = f"`{flag_name(key)}`"
    if field.is_required() or key in common or not common:
        flag = f"**{flag}**"
    bounds = _bounds(field.metadata)
    value = f"{_value(field.annotation)}{', ' if bounds else ''}{bounds}"
    return f"| {flag} | `{key}` | {value} | {_default(field)} | {_one_line(field.description or '')} |"


def _value(annotation: Any) -> str:
    """Say which values a setting takes."""
    arguments = get_args(annotation)
    match get_origin(annotation):
        case None:
            return _PLAIN[annotation]
        case origin if origin is Literal:
            return ", ".join(f"`{choice}`" for choice in arguments)
        case origin if origin is list:
            return f"list: {_value(arguments[0])}"
        case origin if origin in (Union, UnionType):
            return ", ".join(_value(argument) for argument in arguments if argument is not type(None))
        case _:  # Annotated
            bounds = _bounds(arguments[1:])
            return f"{_value(arguments[0])}{' ' if bounds else ''}{bounds}"


def _bounds(metadata: Iterable[Any]) -> str:
    """Write down the limits of a number, as in `> 0, ≤ 1`."""
    flat = [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
    return ", ".join(
        f"{sign} {getattr(part, name)}" for name, sign in _BOUNDS.items() for part in flat if hasattr(part, name)
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined or value is None or value == []:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _table(title: str, file: str, columns: Iterable[Column]) -> str:
    rows = [f"| `{c.name}` | `{c.type}` | {c.unit} | {c.meaning} |" for c in columns]
    return "\n".join(
        [
            f"## {title}\n",
            f"`{file}`\n",
            "| column | type | unit | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _one_line(text: str) -> str:
    """Put a text on one line of a table; what Markdown would take for emphasis stays as it is."""
    return re.sub(r"(?<!`)\*", r"\\*", " ".join(text.split())).replace("|", "\\|")


def architecture() -> str:
    """Return the page of the architecture, each line of its map with the first line of the file's docstring."""
    page = ARCHITECTURE.read_text(encoding="utf-8")
    return re.sub(r"^(histo/\S*) +\S.*$", lambda line: f"{line[1]:43}{_first_line(line[1])}", page, flags=re.MULTILINE)


def _first_line(path: str) -> str:
    """Return the first line of the docstring of a module, or of a package, without its full stop."""
    file = ROOT / path / "__init__.py" if path.endswith("/") else ROOT / path
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].removesuffix(".")


if __name__ == "__main__":
    (HERE / "cli.md").write_text(cli(), encoding="utf-8")
    (HERE / "tables.md").write_text(tables_page(), encoding="utf-8")
    ARCHITECTURE.write_text(architecture(), encoding="utf-8")
