"""A program of a user's, which `make lint` checks: mypy knows what each function takes and returns.

An error that is expected is ignored by its code; one that does not come is an error (`warn_unused_ignores`).
"""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import histo

model = histo.load_model("RUN", device="cpu")
assert_type(model.mpp, float | None)
assert_type(model(["a.png", Path("b.png")]), npt.NDArray[np.float32])

with histo.open_slide(Path("s.svs"), mpp_if_missing=0.25) as slide:
    for tile in slide.tiles(0.5, 224, stride_px=112, tissue={"min_fraction": 0.5}):
        assert_type(tile.x, int)
        assert_type(model(tile.pixels), npt.NDArray[np.float32])

labels = histo.label("SLIDES", model, "OUT", workers=2)
assert_type(labels, histo.Labels)
assert_type(histo.read_labels("OUT").classes, list[str])
assert_type(histo.draw(labels), dict[str, Path])
assert_type(histo.export_geojson(labels, least_certain=50), dict[str, Path])
assert_type(histo.prepare_tiles("TABLE", slides="SLIDES", annotations="DRAWN", tiling={"mpp": 0.5}), Path)
assert_type(histo.train(["A", Path("B")], "RUN", mpp=0.5), histo.Model)
assert_type(histo.train(histo.TrainSpec(data=[Path("A")], out=Path("RUN"))), histo.Model)
assert_type(histo.evaluate("RUN", None, "E"), dict[str, Any])

histo.load_model(3)  # type: ignore[arg-type]
histo.open_slide("s.svs", mpp_if_mising=0.25)  # type: ignore[call-arg]
histo.label("SLIDES")  # type: ignore[call-overload]
histo.load_modell("RUN")  # type: ignore[attr-defined]
