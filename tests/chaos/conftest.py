"""Tables of the slides of a module, made by a plain loop."""

from pathlib import Path

import pytest
from helpers.label_loop import label_folder, make_job


@pytest.fixture(scope="module")
def undisturbed(slides: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label_folder(make_job(tiny_bundle, tmp_path_factory.mktemp("undisturbed")), slides)
