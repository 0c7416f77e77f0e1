"""`ray start --head`, then `ray job submit`, as on a cluster; on ports of its own."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.label_process import WITHIN_S, ledger
from helpers.processes import kill_with_descendants
from ray.job_submission import JobStatus, JobSubmissionClient

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ("histo", "jobs", "configs", "pyproject.toml", "README.md")

pytestmark = [pytest.mark.ray, pytest.mark.slow]


class Head(NamedTuple):
    """A head node.

    Attributes:
        address: For jobs.
        metrics_port: Where Prometheus would ask.
    """

    address: str
    metrics_port: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The head takes `python` from its PATH; a loopback head needs no token, here and in its client."""
    binaries = str(Path(sys.executable).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield dict(os.environ)


@pytest.fixture(scope="module")
def head(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head node.

    The port of its agent is not the default one: where another Ray of this machine has that, no job can be submitted.
    Nor is its folder, where Ray writes the address that jobs join: with several Rays in one folder, that of the newest.
    """
    port, dashboard_port, agent_port, client_port, metrics_port = (free_port() for _ in range(5))
    log = tmp_path_factory.mktemp("head") / "head.log"
    folder = tempfile.mkdtemp(prefix="ray")  # the names of sockets in it must not be long
    with log.open("w") as file:
        process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2",
                "--node-ip-address=127.0.0.1", f"--port={port}", f"--ray-client-server-port={client_port}",
                f"--dashboard-port={dashboard_port}", f"--dashboard-agent-listen-port={agent_port}",
                "--min-worker-port=0", "--max-worker-port=0", "--include-dashboard=true",
                f"--metrics-export-port={metrics_port}",
                "--object-store-memory=200000000", f"--temp-dir={folder}",
            ],
            env=environment, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        for its_port in (dashboard_port, agent_port):
            wait_for(its_port, process, log)
        yield Head(f"http://127.0.0.1:{dashboard_port}", metrics_port)
    finally:
        kill_with_descendants(process)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(port: int, head: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        assert head.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    pytest.fail(f"nothing listens on port {port}: {log.read_text()}")


@pytest.fixture(scope="module")
def working_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program, as a clone has it."""
    folder = tmp_path_factory.mktemp("clone")
    for name in PROGRAM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def submit(address: str, working_dir: Path, environment: dict[str, str], *command: str) -> tuple[int | None, str]:
    """Submit as a person does, from the command line; return the script's own exit code and the log."""
    words = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--address", address]
    words += ["--working-dir", str(working_dir), "--", *command]
    shown = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=WITHIN_S)
    found = re.search(r"raysubmit_\w+", shown.stdout + shown.stderr)
    assert found, shown.stdout + shown.stderr
    job = JobSubmissionClient(address).get_job_info(found[0])
    assert job.status in {JobStatus.SUCCEEDED, JobStatus.FAILED}
    return job.driver_exit_code, shown.stdout + shown.stderr


def metric(port: int, name: str, tag: str) -> float:
    """Return what Prometheus would read of a counter; Ray brings it there every ten seconds."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as page:
            for line in page.read().decode().splitlines():
                if line.startswith(f"{name}{{") and tag in line:
                    return float(line.split()[-1])
        time.sleep(1)
    pytest.fail(f"{name} {tag}: not among the metrics")


def test_train_and_label_run_as_jobs_with_their_true_exit_codes(
    head: Head,
    working_dir: Path,
    environment: dict[str, str],
    tiles: Path,
    tiny: list[str],
    pyramid: Path,
    tmp_path: Path,
) -> None:
    slides = tmp_path / "slides"
    shutil.copytree(pyramid, slides)
    (slides / "broken.svs").write_text("not a slide")
    run, out = str(tmp_path / "run"), str(tmp_path / "out")

    trained, log = submit(
        head.address, working_dir, environment,
        "python", "jobs/train.py", "--data", str(tiles), "--out", run, "--mpp", "1.75",
        "--size-px", "112", "--fit.head.epochs", "1", "--fit.tune.epochs", "0", *tiny,
    )  # fmt: skip
    assert (trained, "epoch 1/1" in log) == (0, True), log
    labelled, log = submit(
        head.address, working_dir, environment,
        "python", "jobs/label.py", "--slides", str(slides), "--model", f"{run}/model", "--out", out,
        "--tissue.min-fraction", "1",
    )  # fmt: skip
    assert (labelled, "1 ok, 1 failed" in log) == (3, True), log
    (tiles_ok,) = (row["n_ok"] for row in ledger(tmp_path / "out").values() if row["status"] == "ok")
    assert metric(head.metrics_port, "ray_histo_tiles_total", 'status="ok"') == tiles_ok > 0
    assert metric(head.metrics_port, "ray_histo_slides_total", 'status="failed"') == 1
    assert metric(head.metrics_port, "ray_histo_seconds_total", 'stage="reading"') > 0
    assert metric(head.metrics_port, "ray_histo_seconds_total", 'stage="network"') > 0
    assert metric(head.metrics_port, "ray_histo_bytes_read_total", "") > 1000
    refused, log = submit(head.address, working_dir, environment, "python", "jobs/label.py", "--slidse", "x")
    assert (refused, "did you mean --slides?" in log) == (2, True), log
    assert (tmp_path / "out" / "tiles" / "two textures.tif.parquet").exists()
