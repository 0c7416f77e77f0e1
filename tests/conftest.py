"""How tests run: in one thread, in groups, without what cannot run here. Fixtures: `helpers/shared_fixtures.py`."""

import gc
import os
import signal
import subprocess
from pathlib import Path

import pytest
from helpers.mounts import OWN_MOUNTS
from hypothesis import settings

collect_ignore = ["faulty"]
"""What it does to OpenSlide it does where it is imported; only processes that tests start may do so."""
settings.register_profile("any machine", deadline=None)  # a busy one takes its time
settings.load_profile("any machine")
LONGEST = (
    *("test_notebook", "pipelines/test_recipe", "chaos/test_chaos", "pipelines/test_label_stops", "finished"),
    *("pipelines/test_job_submit", "pipelines/test_mutations", "pipelines/test_crossval", "pipelines/test_train"),
    *("graph", "pipelines/test_train_recovery", "pipelines/test_label_faults"),
)
"""Groups that are begun first."""
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Compute in one thread, as there are as many test processes as cores, of which Ray's workers get their share."""
    for name, value in (
        *(("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("RAY_worker_niceness", "0")),
        ("RAY_ENABLE_AUTO_CONNECT", "0"),  # or a thread that a run's Ray left joins that of the next test
    ):
        os.environ.setdefault(name, value)
    gc.set_threshold(50_000)  # imports make a million objects that stay, and would be searched for cycles all the time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored by what a script begins with `&`
    deals_out = bool(config.getoption("numprocesses", None)) and not hasattr(config, "workerinput")
    if not deals_out:
        config.pluginmanager.import_plugin("helpers.shared_fixtures")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Name the group of a test: one process runs it, one test after the other.

    The tests of a file are a group, and so are those that use the run `finished`: what they share is made once.
    """
    fixtures = getattr(item, "fixturenames", ())
    if "ray_address" in fixtures:
        item.add_marker("ray")
    if item.get_closest_marker("xdist_group") is None:
        file = item.path.relative_to(Path(__file__).parent).with_suffix("").as_posix()
        item.add_marker(pytest.mark.xdist_group("finished" if "finished" in fixtures else file))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run here, and begin with the slow groups.

    One that came last would keep one process busy while the others have nothing to do.
    """
    impossible = [name for name, possible in (("realdata", SHARED.is_dir), ("mounts", may_mount)) if not possible()]
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in impossible)]
    config.hook.pytest_deselected(items=left_out)
    slow = {group_of(item) for item in items if item.get_closest_marker("slow")} - set(LONGEST)
    order = [*LONGEST, *sorted(slow)]
    items[:] = sorted(
        (item for item in items if item not in left_out),
        key=lambda item: order.index(group_of(item)) if group_of(item) in order else len(order),
    )


def pytest_collection_finish() -> None:
    """Leave out of all searches for cycles what has been loaded by now."""
    gc.freeze()


def group_of(item: pytest.Item) -> str:
    """See `pytest_itemcollected`."""
    marker = item.get_closest_marker("xdist_group")
    assert marker is not None
    return str(marker.args[0])


def may_mount() -> bool:
    """Whether processes may have mounts of their own, as in few containers and on most other machines."""
    try:
        return subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data."""
    return SHARED
