"""Fine-tune tissue and study classifiers, and label slides and studies with them.

On one machine or on a Ray cluster, by the same code; from the command line, and from Python:

    model = histo.train("TILES", "RUN", mpp=0.5)    # or histo.load_model("RUN")
    labels = histo.label("SLIDES", model, "OUT")    # or histo.read_labels("OUT")
    histo.draw(labels)

Read a room from its door, `histo/pipelines/COMMAND.py`, in the order of the data:

    label    collection -> slide -> tissue mask -> grid -> regions -> tiles -> probabilities -> parts
             -> one file per slide
    report   one file per slide -> maps over its grid -> pictures and class maps
    train    sources -> inspection -> split -> batches -> loop (a generator of epochs) -> checkpoints -> bundle
    evaluate sources -> inspection -> probabilities -> metrics -> pictures
    crossval sources -> inspection -> folds -> a training run for each -> predictions of all -> metrics -> pictures
    volumes  studies -> series -> slices -> framing -> intensity -> one file per study

Rooms, from the top: `interface` (Python) and `cli`, `pipelines` (commands; with `run` the only rooms that import Ray),
`run` (lock, record, ledger, Ray), `report` (pictures), `slides`, `volumes` and `learn` (strangers to each other), and
the files beneath them. `docs/architecture.md` has a line for each file.
"""

import sys
from typing import TYPE_CHECKING, Any

if sys.argv[0].endswith("default_worker.py"):  # of Ray, whose path begins with folders of the user
    from histo.own_path import leave_out_folders

    leave_out_folders()

if TYPE_CHECKING:
    from histo.errors import HistoError
    from histo.interface.jobs import draw, evaluate, export_geojson, label, prepare_tiles, train
    from histo.interface.labels import Labels, read_labels
    from histo.interface.model import Model, load_model
    from histo.interface.slide import Tile, Tiles, WholeSlide, open_slide
    from histo.pipelines.evaluation.spec import EvaluateSpec
    from histo.pipelines.exports.spec import ExportGeojsonSpec
    from histo.pipelines.labelling.spec import LabelSpec
    from histo.pipelines.pictures.spec import ReportSpec
    from histo.pipelines.tiles.spec import PrepareTilesSpec
    from histo.pipelines.training.spec import TrainSpec

    __version__: str
    """The version of the installed package."""

__all__ = [
    "EvaluateSpec",
    "ExportGeojsonSpec",
    "HistoError",
    "LabelSpec",
    "Labels",
    "Model",
    "PrepareTilesSpec",
    "ReportSpec",
    "Tile",
    "Tiles",
    "TrainSpec",
    "WholeSlide",
    "__version__",
    "draw",
    "evaluate",
    "export_geojson",
    "label",
    "load_model",
    "open_slide",
    "prepare_tiles",
    "read_labels",
    "train",
]

_PLACES = {
    "histo.errors": ("HistoError",),
    "histo.interface.jobs": ("draw", "evaluate", "export_geojson", "label", "prepare_tiles", "train"),
    "histo.interface.labels": ("Labels", "read_labels"),
    "histo.interface.model": ("Model", "load_model"),
    "histo.interface.slide": ("Tile", "Tiles", "WholeSlide", "open_slide"),
    "histo.pipelines.evaluation.spec": ("EvaluateSpec",),
    "histo.pipelines.exports.spec": ("ExportGeojsonSpec",),
    "histo.pipelines.labelling.spec": ("LabelSpec",),
    "histo.pipelines.pictures.spec": ("ReportSpec",),
    "histo.pipelines.tiles.spec": ("PrepareTilesSpec",),
    "histo.pipelines.training.spec": ("TrainSpec",),
}
"""Modules of the names above, each imported where one of its names is asked for first."""


if not TYPE_CHECKING:  # or a name that does not exist would be none to a type checker

    def __getattr__(name: str) -> Any:
        from importlib import import_module, metadata  # noqa: PLC0415 -- most processes never ask

        if name == "__version__":
            return metadata.version(__name__)
        for module, names in _PLACES.items():
            if name in names:
                return getattr(import_module(module), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
