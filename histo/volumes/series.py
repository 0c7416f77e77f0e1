"""Series of a study: found by header, chosen by name, read one at a time.

A study may hold gigabytes of voxels. So what a study's files say is a list of `FoundSeries`, and only `read` loads one.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal

from histo.errors import Cause, StudyError
from histo.volumes.geometry.axes import Affine
from histo.volumes.intensity import Values

Format = Literal["nifti", "dicom"]
_RENAME = "rename the study's series, or leave it out"


@dataclass(frozen=True)
class Series:
    """One acquisition, as it was stored.

    Attributes:
        values_DHW: `(k, j, i)` of the file, scaled to the scanner's units.
        affine: From `(i, j, k)` to RAS, mm.
        notes: What a person should know of it, though it can be used.
    """

    values_DHW: Values
    affine: Affine
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundSeries:
    """What a header says of a series, and how to read it.

    Attributes:
        name: The file's name without extension, behind its folders where a study's files have several (`T1/x`), or the
            DICOM series' description.
        format: What its files are.
        mark: What tells it from others of the same name: its number, else its UID; empty where nothing does.
        read: Loads it, given what messages call it; raises StudyError.
    """

    name: str
    format: Format
    mark: str
    read: Callable[[str], Series]


def name_apart(found: Sequence[FoundSeries]) -> list[FoundSeries]:
    """Give series of one name different names, `NAME~MARK`, and sort them by name."""
    times = Counter(series.name for series in found)
    named = [
        replace(series, name=f"{series.name}~{series.mark}") if times[series.name] > 1 else series for series in found
    ]
    return sorted(named, key=lambda series: (series.name, series.mark))


def choose_series(
    study_id: str, found: Sequence[FoundSeries], wanted: Sequence[str], count: int
) -> tuple[FoundSeries, ...]:
    """Choose the series of a study.

    Args:
        study_id: What messages call the study.
        found: All series of it, by name.
        wanted: Names, or globs, case-insensitive; a whole name wins over one of a folder, and that over a glob.
        count: How many series a study has, where `wanted` is empty: then all are taken in the order of their names.

    Raises:
        StudyError: `missing_series` or `ambiguous_series`.
    """
    if wanted:
        chosen = tuple(_match(study_id, found, pattern) for pattern in wanted)
        twice = [series.name for series, times in Counter(chosen).items() if times > 1]
        if twice:
            raise StudyError(
                Cause.AMBIGUOUS_SERIES,
                f"{study_id}: two of --preparation.series {', '.join(wanted)} mean {twice[0]!r}; make them narrower",
                f"{study_id}: two of the model's series, {', '.join(wanted)}, mean {twice[0]!r}; {_RENAME}",
            )
        return chosen
    if len(found) == count:
        return tuple(found)
    cause = Cause.MISSING_SERIES if len(found) < count else Cause.AMBIGUOUS_SERIES
    what = f"{study_id}: {_named(found)}; expected {count}"
    hint = _files_are_studies(found) if len(found) > count else ""
    raise StudyError(
        cause,
        f"{what}; name those to use with --preparation.series, or give --preparation.series-count{hint}",
        f"{what}, as the model was trained; leave others out of its folder, or leave the study out{hint}",
    )


def _match(study_id: str, found: Sequence[FoundSeries], pattern: str) -> FoundSeries:
    folded = pattern.casefold()
    matches = [series for series in found if series.name.casefold() == folded]
    matches = matches or [series for series in found if folded in series.name.casefold().split("/")]
    matches = matches or [series for series in found if fnmatchcase(series.name.casefold(), folded)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise StudyError(
            Cause.AMBIGUOUS_SERIES,
            f"{study_id}: --preparation.series {pattern} matches {_named(matches)}; make it narrower",
            f"{study_id}: the model's series {pattern} matches {_named(matches)}; {_RENAME}",
        )
    near = get_close_matches(pattern, [series.name for series in found], n=1)
    what = f"{study_id}: no series {pattern!r} among {_named(found)}"
    hint = f"did you mean {near[0]!r}?" if near else "change --preparation.series, or leave the study out"
    raise StudyError(Cause.MISSING_SERIES, f"{what}; {hint}", f"{what}, by which the model names its series; {_RENAME}")


def _named(found: Sequence[FoundSeries], most: int = 12) -> str:
    names = [repr(series.name) for series in found]
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return f"{len(names)} series ({', '.join(names[:most] + more)})"


def _files_are_studies(found: Sequence[FoundSeries]) -> str:
    many_files = all(series.format == "nifti" and "/" not in series.name for series in found)
    return "; where each file is a study of its own, give --study-is file" if many_files else ""
