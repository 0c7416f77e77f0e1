"""Read a settings file in YAML."""

from pathlib import Path
from typing import Any

import yaml

from histo.errors import UsageError
from histo.regular_file import read_regular

_MOST_BYTES = 2**20
_MOST_KEYS, _DEEPEST = 10_000, 20
"""Of a settings file: more is none that a person wrote."""


class _Loader(yaml.SafeLoader):
    """Reads plain values, and refuses a key that is given twice, of which one would be left out."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the settings of a file, those without a value left out.

    Raises:
        UsageError: If they cannot be read.
    """
    try:
        content = yaml.load(read_regular(path, _MOST_BYTES).decode("utf-8"), _Loader)  # noqa: S506 -- a safe one
        _check_tree(content)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UsageError(f"{path}: not valid YAML: brackets in brackets, deeper than any setting") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected `key: value` lines, found a {type(content).__name__}")
    return _without_nulls(content)


def _check_tree(content: Any) -> None:
    """Refuse keys that are not text, and what aliases make endless or huge."""
    waiting, count = [(content, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count > _MOST_KEYS or depth > _DEEPEST:
            raise ValueError(f"more than {_MOST_KEYS} values, or more than {_DEEPEST} levels of them")
        if isinstance(value, dict):
            wrong = [key for key in value if not isinstance(key, str)]
            if wrong:
                raise ValueError(f"the key {wrong[0]!r} is not text; put it in quotes, or remove it")
        below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting += [(each, depth + 1) for each in below]


def _without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out keys without a value: a section whose lines are all comments means its defaults."""
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None
    }
