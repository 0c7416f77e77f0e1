"""What makes labelling fast changes no table: the direct reader and OpenVINO against OpenSlide and eager torch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.label_loop import found, label, make_job
from helpers.plain_loop import rows_of

from histo.demo.fabricate import write_pyramid
from histo.demo.textures import paint
from histo.pipelines.labelling.region_worker import RegionLabeler
from histo.pipelines.labelling.runtime import Runtime
from histo.tables import Row

pytestmark = pytest.mark.slow

MEASURED = ("confidence", "entropy", "prob_MUS", "prob_STR", "prob_TUM")
CHOSEN = ("pred", "label")


def both(slide: Path, bundle: Path, out: Path, **changes: Any) -> tuple[Row, Row]:
    """Label a slide the fast way and the reference's way; returns both rows of the ledger."""
    fast = make_job(bundle, out / "fast", **changes)
    plain = make_job(bundle, out / "plain", reader="openslide", **changes)
    workers = RegionLabeler(fast), RegionLabeler(plain, Runtime(openvino=out / "none"))
    assert [worker._network.predict.runtime for worker in workers] == ["openvino", "torch"]
    rows = [label(job, found(slide), worker) for job, worker in zip((fast, plain), workers, strict=True)]
    return rows[0], rows[1]


def assert_equal_tables(fast: Row, plain: Row, out: Path) -> None:
    """All that is exact is equal, probabilities are within 1e-4, and labels differ only where two classes tie."""
    assert (fast["reader"], plain["reader"]) == ("direct", "openslide")
    for name in ("width", "height", "level", "mpp_x", "effective_mpp", "n_tiles", "n_ok", "tissue_mm2", "status"):
        assert fast[name] == plain[name], name
    here, there = (rows_of(out / kind / row["tiles_path"]) for kind, row in (("fast", fast), ("plain", plain)))
    assert len(here) == len(there) > 0
    exact = set(here[0]) - {*MEASURED, *CHOSEN}
    assert [{name: row[name] for name in exact} for row in here] == [
        {name: row[name] for name in exact} for row in there
    ]
    for name in MEASURED:
        tolerance = 1e-3 if name == "entropy" else 1e-4
        np.testing.assert_allclose([r[name] for r in here], [r[name] for r in there], atol=tolerance, err_msg=name)
    for one, other in zip(here, there, strict=True):
        assert one["pred"] == other["pred"] or one["confidence"] - other[f"prob_{one['label']}"] < 2e-4


@pytest.mark.parametrize(
    ("mpp", "changes"),
    [
        pytest.param(0.25, {}, id="ratio 2"),
        pytest.param(0.2343, {}, id="ratio 2.134"),
        pytest.param(0.25, {"stride_px": 150}, id="overlap"),
        pytest.param(0.5, {}, id="ratio 1"),
    ],
)
def test_a_fabricated_slide_has_the_table_of_the_reference(
    mpp: float, changes: dict[str, Any], bundle: Path, tmp_path: Path
) -> None:
    image = np.full((1900, 2300, 3), 244, np.uint8)
    image[200:1890, 300:2290] = paint("TUM", 1690, 1990, np.random.default_rng(0))
    image[900:1500, 1000:1700] = paint("MUS", 600, 700, np.random.default_rng(1))
    write_pyramid(tmp_path / "s.tif", image, mpp=mpp)

    fast, plain = both(tmp_path / "s.tif", bundle, tmp_path, **changes)

    assert_equal_tables(fast, plain, tmp_path)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "tissue"),
    [("CMU-1-Small-Region.svs", 0.25), ("tcga-cr-7395-01a-01-ts1.svs", 0.999)],
    ids=["JPEG", "JPEG 2000"],
)
def test_a_real_slide_has_the_table_of_the_reference(
    name: str, tissue: float, shared: Path, bundle: Path, tmp_path: Path
) -> None:
    job = make_job(bundle, tmp_path)
    changes = {"mpp_if_missing": 0.5, "tissue": job.tissue | {"min_fraction": tissue}}

    fast, plain = both(shared / "slides" / name, bundle, tmp_path, **changes)

    assert_equal_tables(fast, plain, tmp_path)


def test_a_slide_that_cannot_be_read_directly_is_left_to_openslide_unless_that_is_refused(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    write_pyramid(tmp_path / "s.tif", paint("TUM", 500, 500, np.random.default_rng(0)), mpp=0.25, quality=None)
    job = make_job(tiny_bundle, tmp_path / "auto")

    auto = label(job, found(tmp_path / "s.tif"))
    forced = label(replace(job, out=tmp_path / "direct", reader="direct"), found(tmp_path / "s.tif"))

    assert (auto["status"], auto["reader"]) == ("ok", "openslide")
    assert (forced["status"], forced["error_code"]) == ("failed", "unreadable")
    assert "--reader direct cannot read it" in forced["error"]
    assert "use --reader auto" in forced["error"]
