from pathlib import Path

import pytest
import yaml

from histo.cli import _spec_of
from histo.spec.base import Spec
from histo.spec.command_line import read_spec
from histo.spec.names import field_names

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "cluster")
EXAMPLES = [
    path
    for path in CONFIGS
    if path.stem in ("tiles", "slides", "studies", "volumes", "geojson", "geoparquet", "wsinfer", "annotated")
]
"""The files that show the defaults; the others are recipes."""
REQUIRED = {
    "train": ["--data", "/d", "--out", "/o"],
    "crossval": ["--data", "/d", "--out", "/o"],
    "label": ["--slides", "/s", "--model", "/m", "--out", "/o"],
    "plan": ["--slides", "/s"],
    "label studies": ["--studies", "/s", "--model", "/m", "--out", "/o"],
    "evaluate": ["--model", "/m", "--data", "/d", "--out", "/o"],
    "report": ["/o"],
    "export geojson": ["/o"],
    "export geoparquet": ["/o"],
    "export wsinfer": ["/o"],
    "convert": ["--model", "/m"],
    "prepare tiles": ["--data", "/d", "--out", "/o"],
    "prepare annotated": ["--slides", "/s", "--annotations", "/a", "--tiling.mpp", "0.5", "--out", "/o"],
    "prepare volumes": ["--studies", "/s", "--out", "/o"],
}


def spec_of(job: str) -> type[Spec]:
    return _spec_of({"label studies": "label", "prepare annotated": "prepare tiles"}.get(job, job))


def job_of(path: Path) -> str:
    """The job that a file is for: `configs/JOB/ANY.yaml`, or `configs/WORD/WORD.yaml` of a job of two words."""
    words = f"{path.parent.name} {path.stem}"
    return words if words in REQUIRED else path.parent.name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_example_configuration_loads(path: Path) -> None:
    job = job_of(path)

    assert read_spec(spec_of(job), ["--config", str(path), *REQUIRED[job]], "histo")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_example_shows_the_defaults(path: Path) -> None:
    job = job_of(path)
    shown = read_spec(spec_of(job), ["--config", str(path), *REQUIRED[job]], "histo").model_dump()
    default = read_spec(spec_of(job), REQUIRED[job], "histo").model_dump()

    assert shown | {"mpp": None} == default | {"mpp": None} if job == "train" else shown == default


def test_the_recipe_for_nct_crc_he_names_its_classes_and_resolution() -> None:
    path = ROOT / "configs" / "train" / "nct-crc-he-100k.yaml"

    spec = read_spec(spec_of("train"), ["--config", str(path), *REQUIRED["train"]], "histo").model_dump()

    assert spec["classes"] == ["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"]
    assert (spec["mpp"], spec["size_px"], spec["max_broken"]) == ([0.5], 224, 0)


@pytest.mark.parametrize("job", REQUIRED)
def test_every_field_says_what_it_is(job: str) -> None:
    def undescribed(spec: type[Spec], prefix: str = "") -> list[str]:
        missing = []
        for name, field in spec.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Spec):
                missing += undescribed(field.annotation, f"{prefix}{name}.")
            elif not field.description:
                missing.append(prefix + name)
        return missing

    assert undescribed(spec_of(job)) == []
    assert {"workers"} < set(field_names(spec_of(job)))


def test_examples_are_commented_mappings() -> None:
    for path in CONFIGS:
        assert path.read_text().startswith("#")
        assert isinstance(yaml.safe_load(path.read_text()), dict)
