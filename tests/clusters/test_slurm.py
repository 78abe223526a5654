"""The job for Slurm, under a srun that starts two processes on this machine."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compt.scaffold.clusters import template
from tests.conftest import TOY, config_file
from tests.environments import ROOT

SRUN = """#!/bin/bash
# As srun: starts the tasks, passes SIGTERM on, and ends as the worst of them.
# A signal may come before a task that has begun is in the list: jobs knows it already.
tasks=()
trap 'kill -TERM $(jobs -p)' TERM
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NTASKS=2 "$@" &
    tasks+=($!)
done
code=0
for task in "${tasks[@]}"; do
    wait "$task"; ended=$?
    while kill -0 "$task" 2> /dev/null; do wait "$task"; ended=$?; done
    if [ "$ended" -gt "$code" ]; then code=$ended; fi
done
exit $code
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo localhost; else echo "$@" >> "$REQUEUED"; fi
"""


class Cluster:
    """Slurm's commands, and jobs that are started as it starts them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.requeued = folder, folder / "requeued"
        self.bin = folder / "bin"
        self.bin.mkdir()
        compt = f'#!/bin/bash\nexec "{sys.executable}" -m compt "$@"\n'
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("compt", compt)):
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        self.script = folder / "slurm.sh"
        self.script.write_text(template("slurm"))

    def start(self, config: Path, work_dir: Path, **more: str) -> subprocess.Popen:
        variables = {
            **os.environ,
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "SLURM_JOB_ID": str(10_000 + os.getpid() % 10_000),
            "SLURM_JOB_NODELIST": "localhost",
            "REQUEUED": str(self.requeued),
            "CONFIG": str(config),
            "WORK_DIR": str(work_dir),
        }
        return subprocess.Popen(
            ["bash", str(self.script)],
            cwd=self.folder,
            env=variables | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


def weights(work_dir: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in work_dir.glob("*/weights.safetensors")}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_job_near_its_limit_is_queued_again_and_ends_as_one_that_never_was(cluster, tmp_path):
    toy = copy.deepcopy(TOY)
    toy["train_dataloader"] = dict(batch_size=16)
    toy["chain"][1]["iters"] = 20
    toy["custom_imports"]["imports"].append("tests.clusters.sleepy")
    pid = tmp_path / "script.pid"
    toy["custom_hooks"] = [dict(type="LimitIsNear", script=str(pid))]
    config = config_file(tmp_path, toy)
    work_dir, other = tmp_path / "work", tmp_path / "never_stopped"

    job = cluster.start(config, work_dir)
    pid.write_text(str(job.pid))
    said, _ = job.communicate(timeout=1200)
    assert "Stopped by SIGTERM after iteration" in said, said
    assert job.returncode == 0  # scontrol's
    assert cluster.requeued.read_text().startswith("requeue 1")
    assert not pid.exists() and set(weights(work_dir)) == {"01_a"}

    again = cluster.start(config, work_dir)
    said, _ = again.communicate(timeout=1200)
    assert again.returncode == 0, said
    assert cluster.requeued.read_text().count("requeue") == 1

    whole = cluster.start(config, other)
    said, _ = whole.communicate(timeout=1200)
    assert whole.returncode == 0, said
    assert weights(work_dir) == weights(other) and len(weights(other)) == 3


def test_a_job_that_fails_is_not_queued_again(cluster, tmp_path):
    (cluster.bin / "compt").write_text("#!/bin/bash\nexit 2\n")
    job = cluster.start(tmp_path / "none.py", tmp_path / "work")
    job.communicate(timeout=60)
    assert job.returncode == 2
    assert not cluster.requeued.exists()


@pytest.mark.parametrize(("code", "is_queued"), [(143, True), (0, False)])
def test_a_signal_queues_the_job_unless_it_has_just_ended(cluster, tmp_path, code, is_queued):
    ready = tmp_path / "ready"
    (cluster.bin / "compt").write_text(
        f"#!/bin/bash\ntrap 'exit {code}' TERM\necho \"$@\" > {ready}$SLURM_PROCID\n"
        "for i in $(seq 600); do sleep 0.1; done\n"
    )
    job = cluster.start(tmp_path / "my.py", tmp_path / "work")
    files = [Path(f"{ready}{rank}") for rank in (0, 1)]
    while not all(file.exists() and file.read_text() for file in files):
        assert job.poll() is None
    assert "--resume --launcher slurm" in files[0].read_text()
    job.send_signal(10)  # SIGUSR1
    job.communicate(timeout=60)
    assert job.returncode == 0
    assert cluster.requeued.exists() is is_queued
