"""Command `prepare tiles`: gather labelled tiles, or cut them from slides."""

from pathlib import Path

from histo.errors import UsageError
from histo.learn.data.source import read_sources
from histo.pipelines.tiles.spec import PrepareTilesSpec
from histo.run.record import FILE, check_command
from histo.run.run_folder import RunFolder
from histo.run.say import say

__all__ = ["PrepareTilesSpec", "prepare_tiles"]


def prepare_tiles(spec: PrepareTilesSpec) -> int:
    """Run a job that writes tiles; returns the exit code. Bad sources and annotations are said before Ray loads.

    Raises:
        HistoError: If the sources or the settings are bad, or too many images are broken.
    """
    if spec.slides is not None:
        from histo.pipelines.tiles.slides import cut_slides  # noqa: PLC0415 -- labelled tiles do without its decoders
        from histo.pipelines.tiles.tasks import FOLDERS  # noqa: PLC0415 -- likewise

        _check_place(spec.out, goes_on=True)
        with RunFolder(spec.out, "prepare tiles", FOLDERS) as folder:
            return cut_slides(folder, spec, spec.slides)
    _check_place(spec.out, goes_on=False)
    assert spec.data is not None, "one of the two is given"
    source = read_sources(spec.data, spec.classes)
    if source.images.layout.task != "tiles":
        raise UsageError(
            f"--data {spec.data[0]}: holds {source.images.layout}, and a tile table is for tiles; give volumes to "
            "histo train as they are"
        )
    with RunFolder(spec.out, "prepare tiles", resume="then give the same command") as folder:
        _check_place(spec.out, goes_on=False)  # another run may have ended there meanwhile
        say(source.describe())
        from histo.pipelines.tiles.job import write_table  # noqa: PLC0415 -- it loads Ray

        return write_table(folder, spec, source)


def _check_place(out: Path, goes_on: bool) -> None:
    """Refuse a folder that holds something else than prepared tiles, or a table.

    Args:
        out: The folder.
        goes_on: Whether tiles that were cut from slides may be there already.

    Raises:
        UsageError: If it does.
    """
    check_command(out, "prepare tiles")
    if any(out.glob("part-?????.parquet" if goes_on else "*.parquet")):
        raise UsageError(f"--out {out}: already holds a table; give another folder, or remove this one")
    others = [path.name for path in out.glob("*") if not path.name.startswith(".") and path.name != "staging"]
    if others and not (out / FILE).exists():
        raise UsageError(f"--out {out}: holds {min(others)}, and no prepared tiles; give an empty folder")
