"""Record of a bundle's converted form, and the agreement of bfloat16. No torch.

A folder with `model.xml`, `model.bin` and `conversion.json`, usually `openvino/` in the bundle. The network takes uint8
tiles `(n, size_px, size_px, 3)` and gives float32 logits `(n, classes)`. The graph bears the hash of the weights, of
their description and of its constants, so that no record beside it can give it to others. A form that is damaged, of
another bundle, or of another version of the converter or of OpenVINO, counts as not there.
"""

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from histo.learn.bundle import bundle_hash, hash_file
from histo.regular_file import read_regular

FOLDER = "openvino"
GRAPH = "model.xml"
CONSTANTS = "model.bin"
RECORD = "conversion.json"
CONVERTER = 2
"""To be raised whenever the same bundle would become another form."""
BINDING = ("histo", "made_of")
"""Where the graph bears it, see `binding`."""
LEAST_TILES = 100
"""Of fewer, agreement says too little: 100 tiles without a changed class still allow for 3 in 100 (95 %)."""
LEAST_SAME_CLASS = 0.99
"""Then no class's share of a slide moves by more than one point in a hundred."""
MOST_MEAN_DIFFERENCE = 0.01
"""What a confidence, printed with two digits, moves by at most, on average."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Agreement(_Record):
    """How the probabilities in bfloat16 agree with those in float32, by the same runtime."""

    tiles: int
    """That were compared."""
    same_class: float
    """Share of them with the same most probable class."""
    mean_difference: float
    """Of a tile's probabilities the one that differs most: mean over the tiles."""
    max_difference: float
    """The greatest of these."""
    device: Literal["cpu"] = "cpu"
    """Where it was measured."""

    @property
    def enough(self) -> bool:
        """Whether bfloat16 may stand in for float32."""
        return (
            self.tiles >= LEAST_TILES
            and self.same_class >= LEAST_SAME_CLASS
            and self.mean_difference <= MOST_MEAN_DIFFERENCE
        )

    def __str__(self) -> str:
        return (
            f"same class on {self.same_class:.2%} of {self.tiles} cases, probabilities differ by "
            f"{self.mean_difference:.2g} on average and {self.max_difference:.2g} at most"
        )


class Conversion(_Record):
    """The content of `conversion.json`."""

    converter: int
    """See `CONVERTER`."""
    openvino: str
    """Version that wrote the form."""
    bundle_sha256: str
    """See `bundle_hash`."""
    graph_sha256: str
    constants_sha256: str
    float32_difference: float
    """Greatest difference of a probability to those of torch in float32, on the cases that were tried."""
    bf16: Agreement | None
    """None where it was not measured."""

    def __str__(self) -> str:
        """Say what was measured, and what became of bfloat16.

        Examples:
            >>> agreement = Agreement(tiles=72, same_class=1, mean_difference=0.001, max_difference=0.008)
            >>> str(Conversion(
            ...     converter=2, openvino="", bundle_sha256="", graph_sha256="", constants_sha256="",
            ...     float32_difference=4.8e-6, bf16=agreement,
            ... )).split("; ", 1)[1]  # doctest: +NORMALIZE_WHITESPACE
            'bf16 is refused: same class on 100.00% of 72 cases, probabilities differ by 0.001 on average and 0.008 at
            most; at least 100 are needed'
        """
        float32 = f"float32 within {self.float32_difference:.2g} of torch"
        if self.bf16 is None:
            return f"{float32}; bf16 unmeasured"
        few = f"; at least {LEAST_TILES} are needed" if self.bf16.tiles < LEAST_TILES else ""
        return f"{float32}; bf16 {'may be used' if self.bf16.enough else 'is refused'}: {self.bf16}{few}"


def read_conversion(folder: Path, bundle: Path) -> Conversion | None:
    """Read and check a converted form.

    Args:
        folder: Where it is.
        bundle: Of which bundle it must be.

    Returns:
        Its record; None if it is not there, damaged, or of another bundle, converter or OpenVINO than the one here.
    """
    try:
        record = Conversion.model_validate_json(read_regular(folder / RECORD))
        constants, graph = hash_file(folder / CONSTANTS), read_regular(folder / GRAPH)
        found = [CONVERTER, metadata.version("openvino"), bundle_hash(bundle)]
        found += [hashlib.sha256(graph).hexdigest(), constants]
    except (OSError, ValidationError):
        return None
    expected = [record.converter, record.openvino, record.bundle_sha256, record.graph_sha256, record.constants_sha256]
    return record if found == expected and binding(bundle, constants).encode() in graph else None


def binding(bundle: Path, constants_sha256: str) -> str:
    """Return what the graph of a form bears: the sha256 of its bundle's bytes and of its constants.

    Raises:
        OSError: If the bundle cannot be read.
    """
    return hashlib.sha256(json.dumps([bundle_hash(bundle), constants_sha256]).encode()).hexdigest()
