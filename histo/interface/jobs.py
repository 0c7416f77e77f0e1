"""Jobs from Python: train, label, evaluate and draw, as the commands do.

A setting has the name of its flag with underscores; one of a section stands in a dictionary, or in a settings object
(`--tissue.min-fraction 0.5` is `tissue={"min_fraction": 0.5}`). `docs/reference/cli.md` lists all of them. A job joins
the Ray that this process has, or the one that RAY_ADDRESS names, or starts one of this machine and stops it again.
"""

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, overload

from upath import UPath

from histo.interface.labels import Labels
from histo.interface.model import Model, load_model
from histo.interface.paths import StrPath, full_place
from histo.interface.words import in_python
from histo.job_environment import job_environment
from histo.learn.bundle import find_bundle, read_bundle
from histo.pipelines.evaluation.spec import EvaluateSpec
from histo.pipelines.exports.spec import ExportGeojsonSpec
from histo.pipelines.labelling.spec import LabelSpec
from histo.pipelines.pictures.spec import ReportSpec
from histo.pipelines.tiles.spec import PrepareTilesSpec
from histo.pipelines.training.spec import TrainSpec
from histo.remote.cache import Cache
from histo.spec.base import SpecType
from histo.spec.keywords import from_keywords


@overload
def train(data: TrainSpec) -> Model: ...
@overload
def train(data: StrPath | Sequence[StrPath], out: StrPath, **settings: Any) -> Model: ...
def train(data: StrPath | Sequence[StrPath] | TrainSpec, out: StrPath | None = None, **settings: Any) -> Model:
    """Fine-tune a pretrained network on labelled tiles, as `histo train` does.

    Args:
        data: Labelled tiles, one or several sources: a folder of class folders, .npz, .csv, .parquet, a tile table. Or
            all settings as one object.
        out: Folder of the run.
        settings: Those of `histo train`, such as `mpp=0.5` or `fit={"head": {"epochs": 5}}`; with `resume=True` a run
            that stopped goes on, and one that is complete is not done again.

    Returns:
        The trained model.

    Raises:
        HistoError: If the data or the settings are bad, or training failed.

    Examples:
        model = histo.train("TILES", "RUN", mpp=0.5)
    """
    with _job():
        spec = _settings(TrainSpec, data, {"data": data, "out": out}, settings)
        from histo.pipelines.train import train as run  # noqa: PLC0415 -- as all of these: it loads what the job needs

        run(spec)
    return load_model(spec.out)


@overload
def label(slides: LabelSpec) -> Labels: ...
@overload
def label(slides: StrPath, model: StrPath | Model, out: StrPath | None = None, **settings: Any) -> Labels: ...
def label(
    slides: StrPath | LabelSpec, model: StrPath | Model | None = None, out: StrPath | None = None, **settings: Any
) -> Labels:
    """Label every slide of a folder, or one slide, as `histo label` does; what is finished in `out` is not done again.

    A slide that fails is a row of `slides` with the reason, and stops no other.

    Args:
        slides: A folder of slides, searched in depth, one slide, a pattern, or a list (.csv, .parquet), on a disk or
            in object storage; for a model of studies, a folder of studies or a manifest. Or all settings as one object.
        model: A model, a model bundle, or a training run, of which the best bundle is taken.
        out: Folder of the results; default: a temporary one, removed when Python ends.
        settings: Those of `histo label`, such as `mpp_if_missing=0.25` or `tissue={"min_fraction": 0.5}`.

    Raises:
        HistoError: If the settings are bad, or the run cannot go on.

    Examples:
        labels = histo.label("SLIDES", "RUN", "OUT")
        labels.tiles.to_table().to_pandas()
    """
    path = model.path if isinstance(model, Model) else model
    if not isinstance(slides, LabelSpec) and out is None:
        out = _temporary_folder()
    with _job():
        spec = _settings(LabelSpec, slides, {_input(path): slides, "model": path, "out": out}, settings)
        from histo.pipelines.label import label as run  # noqa: PLC0415

        run(spec)
    return Labels(spec.out)


def _temporary_folder() -> str:
    """Make a folder that is removed when Python ends."""
    folder = tempfile.mkdtemp(prefix="histo-labels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _input(model: StrPath | UPath | None) -> str:
    """Return the setting that names what a model classifies."""
    if model is None:
        return "slides"
    with Cache().local_folder(find_bundle(full_place(model), flag="model")) as copy:
        bundle = read_bundle(copy, flag="model")
    return "studies" if bundle.task == "volumes" else "slides"


@overload
def evaluate(model: EvaluateSpec) -> dict[str, Any]: ...
@overload
def evaluate(
    model: StrPath | Model, data: StrPath | Sequence[StrPath] | None, out: StrPath, **settings: Any
) -> dict[str, Any]: ...
def evaluate(
    model: StrPath | Model | EvaluateSpec,
    data: StrPath | Sequence[StrPath] | None = None,
    out: StrPath | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure a model on labelled tiles, with pictures and intervals, as `histo evaluate` does.

    Args:
        model: A model, a model bundle, or a training run. Or all settings as one object.
        data: Labelled tiles; None: what the training run held out.
        out: Folder of the results; it must not hold a run yet.
        settings: Those of `histo evaluate`, such as `mpp=0.5`.

    Returns:
        The content of `OUT/metrics.json`: `accuracy`, `macro_f1`, `intervals`, ...

    Raises:
        HistoError: If the data or the settings are bad.

    Examples:
        histo.evaluate("RUN", "TEST_TILES", "EVALUATION")["accuracy"]
        0.97
    """
    path = model.path if isinstance(model, Model) else model
    with _job():
        spec = _settings(EvaluateSpec, model, {"model": path, "data": data, "out": out}, settings)
        from histo.pipelines.evaluate import evaluate as run  # noqa: PLC0415

        run(spec)
    metrics: dict[str, Any] = json.loads((spec.out / "metrics.json").read_text(encoding="utf-8"))
    return metrics


@overload
def draw(labels: ReportSpec) -> dict[str, Path]: ...
@overload
def draw(labels: StrPath | Labels, **settings: Any) -> dict[str, Path]: ...
def draw(labels: StrPath | Labels | ReportSpec, **settings: Any) -> dict[str, Path]:
    """Draw every labelled slide beside its class map, as `histo report` does; what is drawn is not drawn again.

    Args:
        labels: What `label` returned, or the folder of a label run. Or all settings as one object.
        settings: Those of `histo report`, such as `probabilities=["TUM"]` or `colours={"TUM": "#AA0000"}`.

    Returns:
        The picture of each slide that could be drawn, by `slide_id`: a PNG (a `UPath` in object storage).

    Raises:
        HistoError: If no label run of slides is there, or the run cannot go on.

    Examples:
        histo.draw("OUT", probabilities=["TUM"])
        {'a/s1.svs': PosixPath('OUT/pictures/a/s1.svs.png')}
    """
    path = labels.out if isinstance(labels, Labels) else labels
    with _job():
        spec = _settings(ReportSpec, labels, {"out": path}, settings)
        from histo.pipelines.report import pictures_of  # noqa: PLC0415
        from histo.pipelines.report import report as run  # noqa: PLC0415

        run(spec)
    return cast(dict[str, Path], pictures_of(spec))


@overload
def export_geojson(labels: ExportGeojsonSpec) -> dict[str, Path]: ...
@overload
def export_geojson(labels: StrPath | Labels, **settings: Any) -> dict[str, Path]: ...
def export_geojson(labels: StrPath | Labels | ExportGeojsonSpec, **settings: Any) -> dict[str, Path]:
    """Write tiles or regions of every labelled slide for QuPath, as `histo export geojson` does.

    Args:
        labels: What `label` returned, or the folder of a label run. Or all settings as one object.
        settings: Those of `histo export geojson`, such as `regions=True` or `least_certain=50`.

    Returns:
        The file of each slide that could be exported, by `slide_id` (a `UPath` in object storage).

    Raises:
        HistoError: If no label run of slides is there, or the run cannot go on.

    Examples:
        histo.export_geojson("OUT", least_certain=50)
        {'a/s1.svs': PosixPath('OUT/geojson/a/s1.svs.geojson')}
    """
    path = labels.out if isinstance(labels, Labels) else labels
    with _job():
        spec = _settings(ExportGeojsonSpec, labels, {"out": path}, settings)
        from histo.pipelines.export_geojson import export_geojson as run  # noqa: PLC0415
        from histo.pipelines.export_geojson import geojson_of  # noqa: PLC0415

        run(spec)
    return cast(dict[str, Path], geojson_of(spec))


@overload
def prepare_tiles(out: PrepareTilesSpec) -> Path: ...
@overload
def prepare_tiles(out: StrPath, **settings: Any) -> Path: ...
def prepare_tiles(out: StrPath | PrepareTilesSpec, **settings: Any) -> Path:
    """Write labelled tiles to one table, or cut them from annotated slides, as `histo prepare tiles` does.

    Args:
        out: Folder of the table. Or all settings as one object.
        settings: Those of `histo prepare tiles`: `data=["TILES", "MORE.npz"]`, or `slides="SLIDES",
            annotations="DRAWN", tiling={"mpp": 0.5}`.

    Returns:
        The folder, a source for `train`.

    Raises:
        HistoError: If sources, annotations or settings are bad, or the run cannot go on.

    Examples:
        table = histo.prepare_tiles("TABLE", slides="SLIDES", annotations="DRAWN", tiling={"mpp": 0.5})
        model = histo.train(table, "RUN", mpp=0.5)
    """
    with _job():
        spec = _settings(PrepareTilesSpec, out, {"out": out}, settings)
        from histo.pipelines.prepare_tiles import prepare_tiles as run  # noqa: PLC0415

        run(spec)
    return spec.out


@contextmanager
def _job() -> Iterator[None]:
    with job_environment(), in_python():
        yield


def _settings(kind: type[SpecType], first: object, given: Mapping[str, Any], settings: Mapping[str, Any]) -> SpecType:
    """Return the settings of a job: the object that was given first, or those that were given one by one."""
    if not isinstance(first, kind):
        return from_keywords(kind, {**given, **settings})
    if settings:
        raise TypeError(f"give {kind.__name__} alone, or each setting by its name")
    return first
