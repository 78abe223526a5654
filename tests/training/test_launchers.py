"""Processes that no launcher has started."""

from __future__ import annotations

import os

import pytest

from compt.errors import ConfigError
from compt.training.distributed import start

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
OTHERS = (
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_LOCALID",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
)
STARTED = dict(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1")


@pytest.fixture
def environment(monkeypatch):
    """The environment of a process that nothing has launched."""
    for name in (*NAMES, *OTHERS):
        monkeypatch.setenv(name, "")  # so that what is set below is taken back
        monkeypatch.delenv(name)
    return os.environ


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        ("pytorch", ("RANK is not set", "WORLD_SIZE is not set", "MASTER_ADDR", "torchrun")),
        ("slurm", ("SLURM_PROCID is not set", "SLURM_NTASKS is not set", "SLURM_LOCALID", "srun")),
        ("mpi", ("OMPI_COMM_WORLD_RANK is not set", "MASTER_ADDR is not set", "mpirun")),
    ],
)
def test_a_launcher_that_has_not_started_the_process_is_named(environment, launcher, words):
    with pytest.raises(ConfigError) as caught:
        start(launcher)
    assert caught.value.exit_code == 2
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (dict(RANK="x"), "RANK='x' is no number"),
        (dict(RANK="1"), "RANK is not below the number of processes"),
        (dict(MASTER_PORT="x"), "MASTER_PORT='x' is no port"),
        (dict(MASTER_PORT="99999"), "MASTER_PORT='99999' is no port"),
        (dict(MASTER_ADDR="nowhere.invalid"), "MASTER_ADDR='nowhere.invalid' is not found"),
    ],
)
def test_an_environment_that_no_process_can_join(environment, change, fault):
    environment.update(STARTED | change)
    with pytest.raises(ConfigError, match="--launcher pytorch") as caught:
        start("pytorch")
    assert fault in caught.value.what


def test_processes_that_do_not_meet_are_one_message(environment, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("The server socket has failed to listen: in use")

    monkeypatch.setattr("torch.distributed.init_process_group", refuse)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    environment.update(STARTED | dict(MASTER_PORT="29519"))
    with pytest.raises(ConfigError, match="in use") as caught:
        start("pytorch")
    assert caught.value.where.endswith("127.0.0.1:29519")
