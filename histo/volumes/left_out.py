"""Tell slices of the patient from DICOM files that are left out.

Left out are objects without such an image (reports, masks, doses, captures of a screen, colour, directories of a disc)
and scouts. Neither do they say which examination and which patient a series is of.
"""

from pathlib import Path
from typing import Any

from pydicom.uid import UID

from histo.folders import kind_name

KEYWORDS = (
    *("SOPClassUID", "Modality", "ImageType", "Rows", "Columns", "SamplesPerPixel"),
    "PhotometricInterpretation",
)
"""The elements that are asked for it."""
INVERTED = "MONOCHROME1"
_GREY = (INVERTED, "MONOCHROME2")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_NO_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "masks (SEG)",
    "1.2.840.10008.5.1.4.1.1.66.7": "masks (SEG)",
    "1.2.840.10008.5.1.4.1.1.481.2": "doses (RTDOSE)",
    "1.2.840.10008.5.1.4.1.1.30": "parametric maps",
    "1.2.840.10008.1.3.10": "DICOMDIR",
}


def left_out(file: Path, header: Any) -> str:
    """Return the word for what is no slice of the patient; empty for one that is.

    Args:
        file: Where it is.
        header: Its elements of `KEYWORDS`.

    Raises:
        EOFError: If it should be an image, and ends before the size of one.
    """
    meta = getattr(header, "file_meta", {})
    uid = UID(str(header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or ""))
    if uid in _NO_IMAGES:
        return _NO_IMAGES[uid]
    if not header.get("Rows") or not header.get("Columns"):
        if not uid and "TransferSyntaxUID" not in meta:
            return f"{kind_name(file.name)} files"
        if not uid or "Image Storage" in uid.name:
            raise EOFError("the header ends before the size of the image")
        return f"{header.get('Modality') or uid.name} objects"
    if uid.startswith(_SECONDARY_CAPTURE):
        return "secondary captures"
    if int(header.get("SamplesPerPixel") or 1) > 1 or header.get("PhotometricInterpretation", _GREY[1]) not in _GREY:
        return "colour images"
    return "localizers" if "LOCALIZER" in texts(header.get("ImageType")) else ""


def texts(value: Any) -> list[str]:
    """Return the values of an element that may have several."""
    return [value] if isinstance(value, str) else [str(part) for part in value or []]
