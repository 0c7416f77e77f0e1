"""Label a folder of slides with WSInfer's own command, in WSInfer's environment.

`python wsinfer_slide.py SLIDES MODEL OUT`, where MODEL is what `wsinfer_model.py` wrote. WSInfer loads its registry of
models from the internet before it looks at its arguments; an empty one takes its place, since the model is given as
files.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import wsinfer_zoo.client


def main() -> None:
    """Label, and print how many tiles were labelled."""
    slides, model, out = (Path(name) for name in sys.argv[1:])
    wsinfer_zoo.client.load_registry = lambda: SimpleNamespace(models={})
    from wsinfer.cli.cli import cli  # noqa: PLC0415 -- it asks for the registry when it is imported

    files = ["--wsi-dir", slides, "--config", model / "config.json", "--model-path", model / "model.pt"]
    cli(["--backend", "openslide", "run", *map(str, files), "--results-dir", str(out)], standalone_mode=False)
    tables = [path.read_text().splitlines() for path in (out / "model-outputs-csv").glob("*.csv")]
    print(sum(len(lines) - 1 for lines in tables))


if __name__ == "__main__":
    main()
