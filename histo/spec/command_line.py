"""Settings: a YAML file and the command line become one checked, frozen object.

A `Spec` is what a person writes. YAML keys are the field names (`tiling.stride_px`); flags are the same names with
dashes (`--tiling.stride-px`). A flag wins over the file. Anything unknown or out of range is a `UsageError` of one
line that names the place, the value and the nearest valid name. `--help` lists the fields that people use
(`Spec.COMMON`), `--help-all` lists all.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsError

from histo.errors import UsageError
from histo.spec.base import Spec, SpecType
from histo.spec.explain import Wording, explain
from histo.spec.names import field_name, field_names, flag_name, nearest, settings
from histo.spec.yaml_file import read_yaml

_OWN_FLAGS = ("-h", "--help", "--help-all", "--config")
"""Flags that are no fields."""


class _Help(argparse.Action):
    """Shows help, of all fields if `const` says so, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        assert isinstance(parser, _Parser)
        parser.show_help(every_field=bool(self.const))
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """argparse that reports a mistake in one line, with the nearest flag, and leaves the exit to the caller."""

    def __init__(self, spec: type[Spec], prog: str) -> None:
        first = f" {spec.POSITIONAL.upper()}" if spec.POSITIONAL else ""
        usage = f"{prog}{first} [--help] [--config FILE.yaml] [--any.field value ...]"
        super().__init__(prog=prog, usage=usage, description=spec.__doc__, allow_abbrev=False, add_help=False)
        self._spec = spec
        for flags, every_field, text in (
            (("-h", "--help"), False, "show the settings that people use"),
            (("--help-all",), True, "show all settings"),
        ):
            self.add_argument(
                *flags,
                action=_Help,
                nargs=0,
                const=every_field,
                dest=argparse.SUPPRESS,
                default=argparse.SUPPRESS,
                help=text,
            )
        self.add_argument("--config", metavar="FILE.yaml", type=Path, help="settings file; flags win over it")

    def show_help(self, *, every_field: bool) -> None:
        """Print help: of all fields, or of the common ones and then how many there are beside them."""
        for action in self._actions:
            action.help = _without_none(action.help or "")
            action.metavar = _METAVARS.get(str(action.metavar), action.metavar)
        left_out = [] if every_field else [action for action in self._actions if not self._is_common(action)]
        for action in left_out:
            action.help = argparse.SUPPRESS
        self.epilog = f"--help-all lists {len(left_out)} more" if left_out else None
        self.print_help()

    def _is_common(self, action: argparse.Action) -> bool:
        flag = action.option_strings[0]
        if not self._spec.COMMON or flag in _OWN_FLAGS or action.help == argparse.SUPPRESS:
            return True
        return field_name(flag) in self._spec.COMMON | {
            name for name, field in settings(self._spec) if field.is_required()
        }

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        plain = self._spec.POSITIONAL
        if plain and unknown and not unknown[0].startswith("-") and not hasattr(parsed, plain):
            setattr(parsed, plain, unknown.pop(0))
        if unknown:
            raise UsageError(self._explain_unknown(unknown[0], list(args)))
        return parsed

    def _explain_unknown(self, word: str, argv: list[str]) -> str:
        if word.startswith("-"):
            flag = word.partition("=")[0]
            return f"{flag}: unknown flag{nearest(flag, list(self._option_string_actions))}"
        before = argv[argv.index(word) - 1] if argv.index(word) else ""
        switch = self._option_string_actions.get(before)
        if switch is not None and switch.nargs == 0:
            return f"{before} {word}: {before} takes no value; give {' or '.join(switch.option_strings)}"
        first = next(flag for flag in self._option_string_actions if flag not in _OWN_FLAGS)
        return f"{word}: no flag stands before it; every value follows its flag, as in {first} {word}"


_METAVARS = {
    "int": "N",
    "float": "X",
    "str": "TEXT",
    "Path": "PATH",
    "{Path,UPath}": "PATH",
    "list[Path]": "PATH,...",
    "list[str]": "NAME,...",
    "dict[str,str]": "NAME=VALUE,...",
    "list[float]": "X,...",
}
"""Values of fields, as help writes them."""


def _without_none(text: str) -> str:
    """Leave out a default that says nothing: that of a field whose text states what is done without it."""
    return re.sub(r" \(default: (None|\[\])\)$", "", text)


def read_spec(
    spec: type[SpecType],
    argv: Sequence[str],
    prog: str,
    others: Callable[[], Mapping[str, type[Spec]]] = dict,
) -> SpecType:
    """Read the settings of one command from its arguments and the file that `--config` names.

    Args:
        spec: The settings class.
        argv: Arguments without the program's and the command's name.
        prog: What `--help` calls the program.
        others: Returns the settings classes of all commands by their names, to tell a file that is for another one.

    Raises:
        UsageError: For a wrong flag, key, value or file; one line for each.
        SystemExit: After `--help` and `--help-all`.
    """
    _check_text(argv)
    parser = _Parser(spec, prog)
    runnable = type(spec.__name__, (spec, BaseSettings), {"__doc__": spec.__doc__})
    source: CliSettingsSource[Any] = CliSettingsSource(
        runnable,
        root_parser=parser,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )
    parsed = parser.parse_args(list(argv))
    try:
        flags = source(parsed_args=parsed)()
    except SettingsError as error:
        raise UsageError(_explain_list(error, spec)) from None
    flags.pop("config", None)
    file = read_yaml(parsed.config) if parsed.config else {}
    try:
        return spec.model_validate(_merge(file, flags))
    except ValidationError as error:
        if file and (owner := _owner(file, spec, others)):
            raise UsageError(f"{parsed.config}: has settings of {owner}; give a file for {prog}") from None
        raise UsageError("\n".join(explain(error, spec, _wording(spec, prog, flags, parsed.config)))) from None


def _check_text(argv: Sequence[str]) -> None:
    """Refuse what is no text: it could neither be written to `run.json` nor be given to Ray."""
    for word in argv:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{word}: is not UTF-8; give a name in UTF-8, such as that of a link to it") from None


def _owner(file: dict[str, Any], spec: type[Spec], others: Callable[[], Mapping[str, type[Spec]]]) -> str | None:
    """Name the command whose settings a file has, if they are not all those of this one."""
    names = set(_names_in(file))
    if names <= set(field_names(spec)):
        return None
    return next((name for name, other in others().items() if names <= set(field_names(other))), None)


def _names_in(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _names_in(value, f"{prefix}{name}.")


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Lay `high` over `low`, key by key and level by level."""
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _wording(spec: type[Spec], prog: str, flags: dict[str, Any], file: Path | None) -> Wording:
    """Name the place of a setting: its flag, or the line of the file."""

    def place(names: Sequence[str]) -> str:
        name = ".".join(names)
        return f"{file}: {name}" if file and not _holds(flags, names) else flag_name(name)

    def missing(name: str) -> str:
        if name == spec.POSITIONAL:
            return f"{name.upper()} is missing: {prog} {name.upper()}"
        return f"{flag_name(name)} is missing; give the flag, or `{name}` in a --config file"

    return Wording(
        place,
        missing,
        cannot_read="cannot be read; give the list in a --config file",
    )


def _explain_list(error: SettingsError, spec: type[Spec]) -> str:
    """Say which flag has a value that pydantic-settings takes for a list or a dict and cannot read."""
    named = re.search(r'(?:field "|encountered for )([\w.]+)', str(error))
    flag = flag_name(named[1]) if named else "a flag"
    if named and "dict" in str(dict(settings(spec))[named[1]].annotation):
        return f"{flag}: cannot be read; give NAME=VALUE, several with commas"
    return f"{flag}: cannot be read ({error.__cause__}); put a path with brackets, braces or quotes in double quotes"


def _holds(values: Any, names: Sequence[str]) -> bool:
    for name in names:
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True
