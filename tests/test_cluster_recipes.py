"""The recipes of `configs/cluster/`, as far as they can be tried without a cluster."""

import copy
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from helpers.drawn import make_slide
from helpers.plain_loop import rows_of
from ray.autoscaler._private.util import prepare_config, validate_config

from histo.cli import _specs
from histo.spec.command_line import read_spec

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "configs" / "cluster"
SHELLCHECK = Path(sysconfig.get_path("scripts")) / "shellcheck"

Fields = Mapping[str, Any]
TEXTS: Fields = {"*": str}
MOUNT: Fields = {"name": str, "mountPath": str}
VOLUME: Fields = {
    "name": str,
    "emptyDir": {"medium": str, "sizeLimit": str},
    "persistentVolumeClaim": {"claimName": str},
}
CONTAINER: Fields = {
    "name": str,
    "image": str,
    "envFrom": [{"secretRef": {"name": str}}],
    "resources": {"requests": TEXTS, "limits": TEXTS},
    "volumeMounts": [MOUNT],
}
POD: Fields = {
    "spec": {
        "containers": [CONTAINER],
        "tolerations": [{"key": str, "operator": str, "effect": str}],
        "volumes": [VOLUME],
    }
}
RAY_JOB: Fields = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str, "generateName": str},
    "spec": {
        "entrypoint": str,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "backoffLimit": int,
        "activeDeadlineSeconds": int,
        "rayClusterSpec": {
            "rayVersion": str,
            "enableInTreeAutoscaling": bool,
            "authOptions": {"mode": str, "secretName": str},
            "headGroupSpec": {"rayStartParams": TEXTS, "template": POD},
            "workerGroupSpecs": [
                {
                    "groupName": str,
                    "replicas": int,
                    "minReplicas": int,
                    "maxReplicas": int,
                    "rayStartParams": TEXTS,
                    "template": POD,
                }
            ],
        },
    },
}
"""Fields and types of a RayJob and of pods, as far as the recipe may use them.

From KubeRay's `docs/reference/api.md` (github.com/ray-project/kuberay, commit 0057210; `authOptions` from that of
version 1.6.2) and Kubernetes' API 1.28; `benchmarks/kuberay_schema.py` holds the recipe against the whole schema of the
custom resource.
"""


def misfits(value: object, kind: Any, where: str = "") -> Iterator[str]:
    """Yield the places at which a document has another field or type than it may have."""
    if isinstance(kind, list):
        items = value if isinstance(value, list) else [value]
        yield from ([] if isinstance(value, list) else [where])
        for number, item in enumerate(items):
            yield from misfits(item, kind[0], f"{where}[{number}]")
    elif isinstance(kind, Mapping):
        if not isinstance(value, dict):
            yield where
            return
        for name, below in value.items():
            known = kind.get(name, kind.get("*"))
            yield from [f"{where}.{name}"] if known is None else misfits(below, known, f"{where}.{name}")
    elif type(value) is not kind:
        yield where


@pytest.fixture
def ray_job() -> Any:
    return yaml.safe_load((CLUSTER / "kuberay.yaml").read_text())


def test_the_job_of_kubernetes_has_fields_of_its_schema_alone(ray_job: Any) -> None:
    assert list(misfits(ray_job, RAY_JOB)) == []
    assert (ray_job["apiVersion"], ray_job["kind"]) == ("ray.io/v1", "RayJob")


def test_a_field_that_is_misspelt_or_of_another_type_is_found(ray_job: Any) -> None:
    changed = copy.deepcopy(ray_job)
    changed["spec"]["ttlSecondsAfterFinish"] = changed["spec"].pop("ttlSecondsAfterFinished")
    changed["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] = "2"
    changed["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0

    assert list(misfits(changed, RAY_JOB)) == [
        ".spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus",
        ".spec.rayClusterSpec.workerGroupSpecs[0].replicas",
        ".spec.ttlSecondsAfterFinish",
    ]


def test_the_pods_mount_what_they_have_and_the_cache_has_room(ray_job: Any) -> None:
    cluster = ray_job["spec"]["rayClusterSpec"]
    words = shlex.split(shlex.split(ray_job["spec"]["entrypoint"])[2].partition("||")[0])
    assert words[0] == "histo"
    spec = read_spec(_specs()[f"histo {words[1]}"], words[2:], "histo label")
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert mounts["/dev/shm"]["medium"] == "Memory"
        if group is not cluster["headGroupSpec"]:
            assert float(mounts[str(spec.cache.folder)]["sizeLimit"].removesuffix("Gi")) > spec.cache.gib  # type: ignore[attr-defined] # of LabelSpec


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (3, 0), (1, 1), (2, 1)])
def test_a_job_of_kubernetes_is_tried_again_unless_all_is_done(
    ray_job: Any, code: int, expected: int, tmp_path: Path
) -> None:
    """KubeRay writes the command behind `ray job submit --` into a line for bash; Ray gives a shell what gets there."""
    (tmp_path / "histo").write_text(f"#!/bin/sh\n[ $# = 11 ] || exit 99\nexit {code}\n")
    (tmp_path / "histo").chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    show = shlex.join([sys.executable, "-c", "import shlex, sys; print(shlex.join(sys.argv[1:]))"])

    submitted = subprocess.check_output(["bash", "-ce", f"{show} {ray_job['spec']['entrypoint']} ; :"], text=True)

    assert subprocess.run(submitted, shell=True, env=environment, check=False).returncode == expected


def test_rays_launcher_takes_its_file() -> None:
    config = yaml.safe_load((CLUSTER / "ray-up.yaml").read_text())

    validate_config(prepare_config(copy.deepcopy(config)))
    del config["available_node_types"]["head"]["node_config"]
    with pytest.raises(Exception, match="node_config"):
        validate_config(prepare_config(config))


def test_each_machine_of_the_launcher_has_a_system_and_an_environment_for_histo() -> None:
    """Ray's own defaults are an Ubuntu and a Python that are too old, and `pip install` into the system's Python."""
    config = prepare_config(yaml.safe_load((CLUSTER / "ray-up.yaml").read_text()))

    for kind in config["available_node_types"].values():
        assert kind["node_config"]["ImageId"].startswith("ami-")
    for part in (
        "head_setup_commands",
        "worker_setup_commands",
        "head_start_ray_commands",
        "worker_start_ray_commands",
    ):
        for command in config[part]:
            assert not re.search(r"(?<!~/histo/bin/)\b(pip|ray) ", command), command
            assert shellcheck(command, "bash") == ""


def shellcheck(script: str, shell: str) -> str:
    checked = subprocess.run(
        [SHELLCHECK, "--shell", shell, "-"], input=script, capture_output=True, text=True, check=False
    )
    return checked.stdout + checked.stderr


def test_shells_find_nothing_wrong() -> None:
    runs = re.findall(r"^RUN ((?:.*\\\n)*.*)$", (CLUSTER / "Dockerfile").read_text(), flags=re.MULTILINE)
    script = (CLUSTER / "histo.sbatch").read_text()
    (on_a_node,) = re.findall(r"^node='\n(.*?)^'$", script, flags=re.MULTILINE | re.DOTALL)

    assert len(runs) == 3
    assert [shellcheck(run, "sh") for run in runs] == ["", "", ""]
    assert shellcheck(script, "bash") == ""
    assert shellcheck(on_a_node, "bash") == ""
    assert "SC2086" in shellcheck("rm $1", "bash")


def test_the_image_copies_files_that_are_there_and_not_left_out() -> None:
    copies = re.findall(r"^COPY (.+) \S+$", (CLUSTER / "Dockerfile").read_text(), flags=re.MULTILINE)
    names = {name for line in copies for name in line.split()}
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}

    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []
    assert names == kept


SRUN = """
while [[ "$1" == --* ]]; do shift; done
trap 'kill -TERM $(jobs -p) 2>/dev/null' TERM INT
for ((i = 0; i < SLURM_JOB_NUM_NODES; i++)); do SLURM_NODEID=$i "$@" & done
wait; wait
"""
"""In the place of SLURM's: runs a command once for each node, all of them on this machine."""


class Slurm:
    """A job of two nodes of one CPU, on this machine."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder / "bin"
        self._folder.mkdir()
        self.stub("srun", SRUN)
        path = os.pathsep.join([str(self._folder), sysconfig.get_path("scripts"), os.environ["PATH"]])
        slurm = {"SLURM_JOB_ID": str(number), "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "1"}
        slurm["SLURM_MEM_PER_NODE"] = "2000"
        self._environment = os.environ | slurm | {"PATH": path, "HISTO_JOIN_S": "120"}
        self._mark = f"/tmp/ray-{number}"
        self._log = folder / "log"

    def stub(self, name: str, script: str) -> None:
        """Have another command be called by a name."""
        (self._folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (self._folder / name).chmod(0o755)

    def start(self, *words: str, **environment: str) -> "subprocess.Popen[bytes]":
        command = ["bash", str(CLUSTER / "histo.sbatch"), *words]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, env=self._environment | environment, stdout=log, stderr=log)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def assert_gone(self) -> None:
        """No process of Ray's is left, and no file."""
        lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
        assert [line for line in lines if self._mark in line] == []
        assert not Path(self._mark).exists()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return Slurm(tmp_path, 900_000 + os.getpid())


def test_a_job_of_slurm_on_one_node_ends_at_once_where_ray_does_not_start(slurm: Slurm) -> None:
    slurm.stub("ray", "echo no such option >&2; exit 7")

    code = slurm.start("label", SLURM_JOB_NUM_NODES="1").wait(60)

    assert code == 1
    assert "Ray ended on the nodes" in slurm.said
    slurm.assert_gone()


def test_a_job_of_slurm_that_is_ended_while_its_nodes_join_leaves_nothing(slurm: Slurm) -> None:
    slurm.stub("ray", 'echo "ray $*"; sleep 300 & trap "kill $!" TERM; wait')
    job = slurm.start("label")
    while "ray start" not in slurm.said:
        assert job.poll() is None, slurm.said
        time.sleep(0.1)

    job.send_signal(signal.SIGTERM)

    assert job.wait(60) == 143, slurm.said
    slurm.assert_gone()


def test_a_job_of_slurm_whose_nodes_do_not_join_says_so(slurm: Slurm) -> None:
    slurm.stub("ray", 'sleep 300 & trap "kill $!" TERM; wait')

    assert slurm.start("label", HISTO_JOIN_S="1").wait(60) == 1
    assert "Ray's head did not start at" in slurm.said
    slurm.assert_gone()


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        ("127.0.1.1", "10.3.0.7 172.17.0.1 fd00::2", "10.3.0.7"),
        ("fe80::1 10.3.0.7", "192.168.0.1", "10.3.0.7"),
        ("127.0.0.1", "", "127.0.0.1"),
    ],
)
def test_the_nodes_of_slurm_are_given_an_address_that_is_no_loopback(
    slurm: Slurm, own: str, others: str, expected: str
) -> None:
    slurm.stub("hostname", f'[ "$1" = --ip-address ] && echo "{own}" || echo "{others}"')
    slurm.stub("ray", 'echo "ray $*"')

    slurm.start("label", HISTO_JOIN_S="1").wait(60)

    assert f" --node-ip-address={expected} " in slurm.said


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_of_slurm_labels_on_all_its_nodes_and_ends_with_histos_exit_code(
    slurm: Slurm, tiny_bundle: Path, tmp_path: Path
) -> None:
    make_slide(tmp_path / "slides", "a.tif", seed=1)
    (tmp_path / "slides" / "broken.svs").write_bytes(b"no slide")
    places = ["--slides", str(tmp_path / "slides"), "--model", str(tiny_bundle), "--out", str(tmp_path / "out")]

    code = slurm.start("label", *places).wait(300)

    assert code == 3, slurm.said
    assert "2 nodes: 2 CPUs, 0 GPUs" in slurm.said
    assert {row["slide_id"]: row["status"] for row in rows_of(tmp_path / "out" / "slides.parquet")} == {
        "a.tif": "ok",
        "broken.svs": "failed",
    }
    slurm.assert_gone()


@pytest.mark.ray
@pytest.mark.chaos
def test_a_job_of_slurm_whose_time_is_up_ends_and_goes_on(slurm: Slurm, tiny_bundle: Path, tmp_path: Path) -> None:
    for number in range(40):
        make_slide(tmp_path / "slides", f"{number}.tif", seed=number)
    places = ["--slides", str(tmp_path / "slides"), "--model", str(tiny_bundle), "--out", str(tmp_path / "out")]
    job = slurm.start("label", *places)
    while not list((tmp_path / "out").glob("tiles/*.parquet")):
        assert job.poll() is None, slurm.said
        time.sleep(0.1)

    job.send_signal(signal.SIGTERM)

    assert job.wait(60) == 1, slurm.said
    assert "stopping; the same command goes on from here" in slurm.said
    slurm.assert_gone()
    assert slurm.start("label", *places).wait(300) == 0, slurm.said
    assert len(list((tmp_path / "out").glob("tiles/*.parquet"))) == 40
    slurm.assert_gone()


@pytest.mark.ray
@pytest.mark.chaos
def test_a_job_of_slurm_whose_command_is_wrong_ends_with_a_word(slurm: Slurm) -> None:
    assert slurm.start("label", "--slides", "/nothing").wait(120) == 2
    assert "--model is missing" in slurm.said
    slurm.assert_gone()
