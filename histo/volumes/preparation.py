"""Prepare a study: read, orient, choose series and slices, frame, map to 8 bits."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histo.errors import Cause, StudyError
from histo.folders import counted
from histo.volume_file import Volume
from histo.volumes.files import folders_apart, sort_files
from histo.volumes.formats.dicom import list_dicom
from histo.volumes.formats.nifti import list_nifti
from histo.volumes.geometry.axes import Oriented, check_spacing, orient
from histo.volumes.geometry.framing import fit
from histo.volumes.geometry.slices import choose_slices, require_several, slice_distance_mm
from histo.volumes.intensity import IntensityWindow, check_values, percentile_window, zscore_window
from histo.volumes.series import FoundSeries, choose_series, name_apart
from histo.volumes.spec import PreparationSpec

ALGORITHM = 2
"""Counts up whenever a volume of the same files and settings could differ from that of an earlier version."""

_COARSE = 2.0


@dataclass(frozen=True)
class Prepared:
    """A volume and what is known of it.

    Attributes:
        volume_SDHW: uint8; axes as `histo.volume_file` says.
        spacing_mm: Distance of its neighbouring slices, rows and columns; of the first series where they differ.
        facts: What its file stores: settings, series, spacing.
        columns: What the ledger says of the study's files.
    """

    volume_SDHW: Volume
    spacing_mm: tuple[float, float, float]
    facts: dict[str, Any]
    columns: dict[str, Any]


@dataclass(frozen=True)
class _Channel:
    """One series of the volume, `(D, H, W)`, and what it was made of."""

    grey_DHW: Volume
    spacing_mm: tuple[float, float, float]
    found_slices: int
    found_spacing_mm: tuple[float, float, float]
    notes: tuple[str, ...]


def prepare(study_id: str, files: Sequence[Path], spec: PreparationSpec) -> Prepared:
    """Prepare one study; one series is in memory at a time.

    Args:
        study_id: What messages call it.
        files: All of its files, images or not.
        spec: How.

    Raises:
        StudyError: If it cannot be used; the cause and the message say why.
    """
    found, notes = list_series(study_id, files, spec)
    chosen = choose_series(study_id, found, spec.series, spec.series_count)
    channels = [_prepare_series(series, f"{study_id}: series {series.name}", spec) for series in chosen]
    unused = [series.name for series in found if series not in chosen]
    notes += [f"series not asked for: {', '.join(unused)}"] if unused else []
    notes += [
        f"{series.name}: {note}" for series, channel in zip(chosen, channels, strict=True) for note in channel.notes
    ]
    names, formats = [series.name for series in chosen], {series.format for series in chosen}
    spacing = channels[0].spacing_mm
    return Prepared(
        volume_SDHW=np.stack([channel.grey_DHW for channel in channels]),
        spacing_mm=spacing,
        facts={
            "preparation": spec.model_dump(mode="json") | {"algorithm": ALGORITHM},
            "series": names,
            "spacing_mm": list(spacing),
        },
        columns={
            "format": formats.pop() if len(formats) == 1 else "mixed",
            "n_series": len(names),
            "series": names,
            "n_slices": [channel.found_slices for channel in channels],
            "spacing_mm": [list(channel.found_spacing_mm) for channel in channels],
            "notes": "; ".join(notes) or None,
        },
    )


def list_series(study_id: str, files: Sequence[Path], spec: PreparationSpec) -> tuple[list[FoundSeries], list[str]]:
    """List the series of a study by name, and say which files were left out.

    Raises:
        StudyError: If there is none, or a header cannot be read.
    """
    kinds = sort_files(study_id, files)
    found = [
        series
        for file, folder in zip(kinds.nifti, folders_apart(kinds.nifti), strict=True)
        for series in list_nifti(study_id, file, spec.allow_no_orientation, folder)
    ]
    dicom = list_dicom(study_id, kinds.dicom, spec.spacing_tolerance)
    left_out = dicom.left_out + Counter({f"{ending} files": count for ending, count in kinds.others.items()})
    if not found and not dicom.series:
        held = f"no MRI or CT series in it, but {counted(left_out)}" if left_out else "no files in it"
        raise StudyError(Cause.NO_IMAGES, f"{study_id}: {held}; give NIfTI or DICOM files, or remove it")
    notes = [f"left out: {counted(left_out)}"] if left_out else []
    return name_apart(found + dicom.series), notes + dicom.notes


def _prepare_series(found: FoundSeries, where: str, spec: PreparationSpec) -> _Channel:
    series = found.read(where)
    oriented = orient(series.values_DHW, series.affine, where)
    count, rows, columns = oriented.values_DHW.shape
    check_spacing(oriented.spacing_mm, where)
    require_several((count, rows, columns), where)
    check_values(oriented.values_DHW, where, spec.intensity == "hounsfield")
    window = _window(oriented, spec)
    frame = fit(rows, columns, oriented.spacing_mm[1:], spec.size_px)
    chosen = choose_slices(count, spec.slices, spec.choice, spec.fill)
    grey = np.zeros((spec.slices, spec.size_px, spec.size_px), np.uint8)
    for target, index in zip(grey, chosen, strict=True):
        if index is not None:
            target[...] = frame.put(oriented.values_DHW[index], window)
    distance = slice_distance_mm(chosen, count, oriented.spacing_mm[0], spec.choice)
    notes = (*series.notes, *_notes(oriented, window))
    return _Channel(grey, (distance, frame.pixel_mm, frame.pixel_mm), count, oriented.spacing_mm, notes)


def _window(oriented: Oriented, spec: PreparationSpec) -> IntensityWindow:
    match spec.intensity:
        case "percentile":
            return percentile_window(oriented.values_DHW, spec.percentile_low, spec.percentile_high)
        case "zscore":
            return zscore_window(oriented.values_DHW, spec.zscore_span)
        case "hounsfield":
            half = spec.hounsfield_width / 2
            return IntensityWindow(spec.hounsfield_centre - half, spec.hounsfield_centre + half)


def _notes(oriented: Oriented, window: IntensityWindow) -> Iterator[str]:
    if window.empty:
        yield "constant: all black"
    z, y, x = oriented.spacing_mm
    if max(x, y) > _COARSE * min(x, y):
        axis = "left-right" if x > y else "front-back"
        yield f"coarse {axis} ({max(x, y):g} mm; {z:g} mm between slices): acquired in other planes, cut across here"
