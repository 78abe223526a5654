"""The jobs for clusters: files that their tools read, whose commands are compt's."""

from __future__ import annotations

import argparse
import shlex
import subprocess

import pytest
import yaml

from compt import cli
from compt.cli import init, train
from compt.scaffold.clusters import CLUSTERS, template

STRING, NUMBER = str, int
POD = {
    "replicas": NUMBER,
    "restartPolicy": {"Never", "OnFailure", "Always", "ExitCode"},
    "template": {
        "spec": {
            "terminationGracePeriodSeconds": NUMBER,
            "containers": [
                {
                    "name": {"pytorch"},  # the operator looks for this one
                    "image": STRING,
                    "workingDir": STRING,
                    "command": [STRING],
                    "resources": {"limits": {"nvidia.com/gpu": NUMBER}},
                    "volumeMounts": [{"name": STRING, "mountPath": STRING}],
                }
            ],
            "volumes": [
                {
                    "name": STRING,
                    "persistentVolumeClaim?": {"claimName": STRING},
                    "emptyDir?": {"medium": STRING},
                }
            ],
        }
    },
}
PYTORCH_JOB = {
    "apiVersion": {"kubeflow.org/v1"},
    "kind": {"PyTorchJob"},
    "metadata": {"name": STRING},
    "spec": {
        "nprocPerNode": STRING,
        "runPolicy": {
            "cleanPodPolicy": {"None", "Running", "All"},
            "backoffLimit": NUMBER,
        },
        "pytorchReplicaSpecs": {"Master": POD, "Worker": POD},
    },
}
"""What the custom resource of Kubeflow's training operator 1.x takes, as far as it is used."""
SKYPILOT = {
    "name": STRING,
    "num_nodes": NUMBER,
    "resources": {"accelerators": STRING, "use_spot": bool, "disk_size": NUMBER},
    "workdir": STRING,
    "envs": {"CONFIG": STRING, "WORK_DIR": STRING},
    "file_mounts": {"/runs": {"name": STRING, "mode": {"MOUNT", "COPY", "MOUNT_CACHED"}}},
    "setup": STRING,
    "run": STRING,
}
"""What a task of SkyPilot takes, as far as it is used."""


def check(value, schema, where="job"):
    """Hold a value against a schema: keys all there, but for those with a question mark."""
    if isinstance(schema, dict):
        assert isinstance(value, dict), where
        known = {key.rstrip("?"): inner for key, inner in schema.items()}
        assert not value.keys() - known.keys(), where
        missing = {key for key in schema if not key.endswith("?")} - value.keys()
        assert not missing, (where, missing)
        for key, inner in value.items():
            check(inner, known[key], f"{where}.{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list) and value, where
        for inner in value:
            check(inner, schema[0], where)
    elif isinstance(schema, set):
        assert value in schema, where
    else:
        assert type(value) is schema, (where, value)


def trained_by(words: list[str]) -> argparse.Namespace:
    """Return what the train command reads behind its name."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    train.add_arguments(parser)
    return parser.parse_args(words[words.index("train") + 1 :])


def test_the_kubernetes_job_is_a_pytorch_job():
    job = yaml.safe_load(template("kubernetes"))
    check(job, PYTORCH_JOB)
    gpus = int(job["spec"]["nprocPerNode"])
    for pods in job["spec"]["pytorchReplicaSpecs"].values():
        pod = pods["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        arguments = trained_by(container["command"])
        assert arguments.resume is True and arguments.launcher == "pytorch"
        assert arguments.work_dir.startswith("/runs/")


def test_the_skypilot_job_is_a_task():
    job = yaml.safe_load(template("skypilot"))
    check(job, SKYPILOT)
    words = shlex.split(job["run"].replace("\\\n", " "))
    assert words[:2] == ["exec", "torchrun"]
    arguments = trained_by(words)
    assert arguments.resume is True and arguments.launcher == "pytorch"
    subprocess.run(["bash", "-n"], input=job["run"] + job["setup"], text=True, check=True)


def test_the_slurm_job_asks_for_one_task_a_gpu_and_a_signal_in_time():
    lines = template("slurm").splitlines()
    assert lines[0] == "#!/bin/bash"
    pairs = [line.split()[1].lstrip("-").partition("=") for line in lines if "#SBATCH" in line]
    options = {name: value for name, _, value in pairs}
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert options["signal"].startswith("B:USR1@") and "requeue" in options
    (command,) = [line for line in lines if line.startswith("srun ")]
    arguments = trained_by(shlex.split(command.removesuffix("&")))
    assert arguments.resume is True and arguments.launcher == "slurm"


def test_a_schema_can_be_missed():
    job = yaml.safe_load(template("kubernetes"))
    job["spec"]["runPolicy"]["cleanPodPolicy"] = "Sometimes"
    with pytest.raises(AssertionError):
        check(job, PYTORCH_JOB)


# compt init --cluster


def test_every_cluster_has_a_job():
    assert set(init.CLUSTERS) == set(CLUSTERS)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_job_is_printed_or_written(cluster, tmp_path, capsys):
    assert cli.main(["init", "--cluster", cluster]) == 0
    assert capsys.readouterr().out == template(cluster)
    file = tmp_path / "job"
    assert cli.main(["init", "--cluster", cluster, "-o", str(file)]) == 0
    assert file.read_text() == template(cluster)


def test_a_job_replaces_no_file_unless_told(tmp_path, capsys):
    file = tmp_path / "job.sh"
    file.write_text("mine")
    assert cli.main(["init", "--cluster", "slurm", "-o", str(file)]) == 2
    assert "--force" in capsys.readouterr().err and file.read_text() == "mine"
    assert cli.main(["init", "--cluster", "slurm", "-o", str(file), "--force"]) == 0
    assert file.read_text() == template("slurm")


def test_a_job_is_no_config(capsys):
    assert cli.main(["init", "--cluster", "slurm", "--paradigm", "clip"]) == 2
    assert "--paradigm is for a config" in capsys.readouterr().err
