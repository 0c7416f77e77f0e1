"""`python benchmarks/two_nodes.py`: label and train on two nodes that share object storage alone. Linux, as root.

Each node is a network namespace with an address, a `/tmp` and a `/dev/shm` of its own, and a Ray of one CPU; an S3
server stands between them (moto, extra `dev`). Labels and trains across both, then again while the second node's cable
is pulled in mid-run, and holds what came of it against a run on one machine's disk. Each line that it prints is true of
this run; it ends with exit code 1 if a table, a metric or a bundle differs.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import s3fs
from moto.server import ThreadedMotoServer
from PIL import Image

from histo.demo.bundle import random_bundle
from histo.demo.fabricate import write_pyramid
from histo.demo.textures import paint

SERVER, HEAD, WORKER = "10.77.0.1", "10.77.0.11", "10.77.0.12"
BRIDGE, BUCKET, PORT = "histo-bridge", "histo", 5077
BIN = Path(sys.executable).parent
SLIDES, EDGE_PX = 6, 6720
"""Slides of 225 tiles."""
PULLED_S = 20.0


def call(*words: str) -> None:
    """Run a command of the system's."""
    subprocess.run(words, check=True, capture_output=True)  # noqa: S603 -- our own words


@contextmanager
def network() -> Iterator[None]:
    """Make two namespaces at a bridge."""
    with ExitStack() as stack:
        call("ip", "link", "add", BRIDGE, "type", "bridge")
        stack.callback(call, "ip", "link", "del", BRIDGE)
        call("ip", "addr", "add", f"{SERVER}/24", "dev", BRIDGE)
        call("ip", "link", "set", BRIDGE, "up")
        for name, address in (("histo1", HEAD), ("histo2", WORKER)):
            call("ip", "netns", "add", name)
            stack.callback(call, "ip", "netns", "del", name)
            call("ip", "link", "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
            call("ip", "link", "set", f"v-{name}", "master", BRIDGE, "up")
            call("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            call("ip", "-n", name, "link", "set", "eth0", "up")
            call("ip", "-n", name, "link", "set", "lo", "up")
        yield


class Node:
    """A namespace with a Ray, whose files nobody else sees."""

    def __init__(self, name: str, address: str, log: Path, environment: dict[str, str]) -> None:
        self.name, self._environment = name, environment
        head = ["--head", "--port=6379", "--include-dashboard=false"] if address == HEAD else [f"--address={HEAD}:6379"]
        ray = [str(BIN / "ray"), "start", "--block", "--num-cpus=1", "--num-gpus=0", "--disable-usage-stats"]
        words = " ".join([*ray, f"--node-ip-address={address}", *head])
        own = "mount -t tmpfs tmpfs /tmp && mount -t tmpfs tmpfs /dev/shm && cd /tmp"
        with log.open("ab") as file:
            self.process = subprocess.Popen(  # noqa: S603 -- our own words
                ["ip", "netns", "exec", name, "unshare", "-m", "bash", "-c", f"{own} && exec {words}"],  # noqa: S607 -- wherever ip is
                env=environment,
                stdout=file,
                stderr=file,
            )

    def start(self, log: Path, *words: str) -> "subprocess.Popen[bytes]":
        """Start a command of histo's on the node."""
        inside = ["nsenter", "-t", str(self.process.pid), "-n", "-m", sys.executable, "-m", "histo", *words]
        environment = self._environment | {"RAY_ADDRESS": f"{HEAD}:6379"}
        with log.open("ab") as file:
            return subprocess.Popen(inside, env=environment, stdout=file, stderr=file)  # noqa: S603 -- likewise

    def stop(self) -> None:
        """End the node's Ray, and all that it has started."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def pull(self, is_out: bool) -> None:
        """Pull the node's cable, or put it back."""
        call("ip", "link", "set", f"v-{self.name}", "down" if is_out else "up")


def wait_for(what: str, is_true: Callable[[], bool], seconds: float) -> None:
    """Wait until something is so."""
    begun = time.monotonic()
    while not is_true():
        if time.monotonic() - begun > seconds:
            raise SystemExit(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.3)


def make_data(folder: Path) -> None:
    """Fabricate slides, labelled tiles, and a bundle."""
    random = np.random.default_rng(0)
    image = paint("TUM", EDGE_PX, EDGE_PX, random)
    (folder / "slides").mkdir()
    for number in range(SLIDES):
        write_pyramid(folder / "slides" / f"{number}.tif", np.roll(image, number * 97, axis=0), mpp=0.25)
    for name in ("TUM", "LYM", "STR"):
        (folder / "tiles" / name).mkdir(parents=True)
        for number in range(40):
            Image.fromarray(paint(name, 64, 64, random)).save(folder / "tiles" / name / f"{number}.png")
    random_bundle(folder, "tf_efficientnet_lite0", size_px=224)


def rows(folder: Path) -> dict[str, list[dict[str, object]]]:
    """Return the rows of all tables of a label run."""
    return {
        path.name: pq.ParquetFile(path).read().to_pylist() for path in sorted((folder / "tiles").rglob("*.parquet"))
    }


def losses(folder: Path) -> list[float]:
    """Return the validation losses of a training run."""
    return [json.loads(line)["val_loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Trial:
    """The same jobs, on one disk and on two nodes."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment, self.log = folder, environment, folder / "log"
        self.files = s3fs.S3FileSystem()
        self.head = Node("histo1", HEAD, self.log, environment)
        self.worker = Node("histo2", WORKER, self.log, environment)
        self.failures = 0

    def label(self, top: str, out: str) -> list[str]:
        """Return the words of a label job."""
        where = ["--slides", f"{top}/slides", "--model", f"{top}/model", "--out", out]
        return ["label", *where, "--workers", "2", "--read-timeout-s", "60"]

    def train(self, top: str, out: str) -> list[str]:
        """Return the words of a training job."""
        size = ["--size-px", "64", "--fit.batch-size", "8", "--fit.head.epochs", "2", "--fit.tune.epochs", "2"]
        return ["train", "--data", f"{top}/tiles", "--out", out, "--workers", "2", *size]

    def on_one_machine(self, words: list[str]) -> None:
        """Run a job here, on this disk."""
        with self.log.open("ab") as file:
            command = [sys.executable, "-m", "histo", *words]
            subprocess.run(command, env=self.environment, stdout=file, stderr=file, check=True)  # noqa: S603 -- ours

    def on_two_nodes(self, words: list[str], pull_at: str = "") -> float:
        """Run a job on both nodes, and pull the cable once there is such a file; returns the seconds that it took."""
        begun = time.monotonic()
        job = self.head.start(self.log, *words)
        if pull_at:
            wait_for(pull_at, lambda: bool(self.files.glob(pull_at)) or job.poll() is not None, 300)
            self.worker.pull(is_out=True)
            time.sleep(PULLED_S)
            self.worker.pull(is_out=False)
            self.worker.stop()  # Ray has given the node up
            self.worker = Node("histo2", WORKER, self.log, self.environment)
        code = job.wait(900)
        if code:
            raise SystemExit(f"{words[0]}: exit code {code}\n{self.log.read_text()[-4000:]}")
        return time.monotonic() - begun

    def say(self, what: str, is_equal: bool, seconds: float) -> None:
        """Print what came of a job."""
        self.failures += not is_equal
        print(f"{what}: {'equal' if is_equal else 'DIFFERENT'}, {seconds:.0f} s", flush=True)

    def run(self) -> int:
        """Do it all; returns the exit code."""
        top, here = f"s3://{BUCKET}", str(self.folder)
        wait_for("the head", lambda: b"Ray runtime started" in self.log.read_bytes(), 120)
        wait_for("both nodes", lambda: self.log.read_bytes().count(b"Ray runtime started") == 2, 120)
        self.on_one_machine(self.label(here, f"{here}/labels"))
        self.on_one_machine(self.train(here, f"{here}/run"))
        expected, wanted = rows(self.folder / "labels"), losses(self.folder / "run")
        assert len(expected) == SLIDES, "a table for each slide"
        for name, pull_at in (("labels", ""), ("labels, the cable pulled", f"{BUCKET}/labels1/tiles/*.parquet")):
            out = f"labels{bool(pull_at):d}"
            seconds = self.on_two_nodes(self.label(top, f"{top}/{out}"), pull_at)
            self.files.get(f"{BUCKET}/{out}/", f"{here}/{out}", recursive=True)
            self.say(f"tables of {name}", rows(self.folder / out) == expected, seconds)
        for name, pull_at in (
            ("training", ""),
            ("training, the cable pulled", f"{BUCKET}/run1/checkpoints/index.json"),
        ):
            out = f"run{bool(pull_at):d}"
            seconds = self.on_two_nodes(self.train(top, f"{top}/{out}"), pull_at)
            self.files.get(f"{BUCKET}/{out}/", f"{here}/{out}", recursive=True)
            found = losses(self.folder / out)
            is_equal = len(found) == len(wanted) and bool(np.allclose(found, wanted, atol=1e-4))
            self.say(f"losses of {name}", is_equal, seconds)
        return 1 if self.failures else 0


def main() -> int:
    """Lay the network, start the server and the nodes, and try."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= keys | {"AWS_ENDPOINT_URL": f"http://{SERVER}:{PORT}"}
    root = str(Path(__file__).resolve().parents[1])
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": root, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name, network(), ExitStack() as stack:
        folder = Path(name)
        make_data(folder)
        server = ThreadedMotoServer(ip_address=SERVER, port=PORT, verbose=False)
        server.start()
        stack.callback(server.stop)
        files = s3fs.S3FileSystem()
        files.mkdir(BUCKET)
        for part in ("slides", "tiles", "model"):
            files.put(f"{folder}/{part}", f"{BUCKET}/", recursive=True)
        trial = Trial(folder, environment)
        try:
            return trial.run()
        finally:
            trial.worker.stop()
            trial.head.stop()


if __name__ == "__main__":
    sys.exit(main())
