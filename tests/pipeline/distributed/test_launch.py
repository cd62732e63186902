"""One answer to "which rank am I" under every launcher."""

import os

import pytest

from pipeline.distributed.launch import (
    device_index,
    export,
    hosts,
    interface_towards,
    is_launched,
    is_shell_of_allocation,
    world_from,
)

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
SRUN = {
    "SLURM_PROCID": "1",
    "SLURM_NTASKS": "2",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node7",
}


def test_torchrun_and_deepspeed() -> None:
    world = world_from(TORCHRUN)
    assert (world.rank, world.size, world.local_rank, world.master_address, world.master_port) == (
        3,
        4,
        1,
        "10.0.0.1",
        29500,
    )
    assert not world.is_main


def test_srun_gives_the_ranks_and_every_task_the_same_master() -> None:
    worlds = [world_from({**SRUN, "SLURM_PROCID": str(rank)}) for rank in range(2)]
    assert [w.rank for w in worlds] == [0, 1]
    assert {(w.size, w.master_address, w.master_port) for w in worlds} == {(2, "node7", 15000 + 4711)}


def test_plain_python_is_a_world_of_one_even_in_a_batch_script() -> None:
    assert world_from({}).size == 1
    assert world_from({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"}).size == 1  # the shell of sbatch is no task of a step


@pytest.mark.parametrize("step", [4294967290, 4294967291, 4294967292])
def test_the_shell_of_an_allocation_is_a_world_of_one(step: int) -> None:
    """SLURM gives salloc's interactive step all variables of a task, and the number of the allocation's tasks."""
    shell = {**SRUN, "SLURM_PROCID": "0", "SLURM_STEP_ID": str(step)}
    world = world_from(shell)
    assert (world.rank, world.size, world.master_address) == (0, 1, "127.0.0.1")
    assert is_shell_of_allocation(shell)
    assert not is_launched(shell)
    assert not is_shell_of_allocation(SRUN)
    assert is_launched(SRUN)
    assert world_from({**shell, **TORCHRUN}).size == 4  # torchrun in such a shell


@pytest.mark.parametrize("name", TORCHRUN)
def test_half_a_launcher_is_refused(name: str) -> None:
    environment = {key: value for key, value in TORCHRUN.items() if key != name}
    with pytest.raises(ValueError, match=name):
        world_from(environment)


def test_a_rank_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="RANK = 'x'"):
        world_from({**TORCHRUN, "RANK": "x"})
    with pytest.raises(ValueError, match="RANK = 4: expected a rank below WORLD_SIZE = 4, counted from 0"):
        world_from({**TORCHRUN, "RANK": "4"})


MANY = {**SRUN, "SLURM_STEP_NODELIST": "n[1-3]", "SLURM_STEP_NUM_NODES": "3"}


def test_a_container_is_told_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no scontrol, which alone understands every node list."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert hosts({**MANY, "PIPELINE_HOSTS": "n1 n2 n3"}) == ["n1", "n2", "n3"]
    with pytest.raises(ValueError, match="PIPELINE_HOSTS"):
        hosts(MANY)
    with pytest.raises(ValueError, match="PIPELINE_HOSTS"):  # of the job, where the step has fewer nodes
        hosts({**MANY, "PIPELINE_HOSTS": "n1 n2 n3 n4"})


def test_gloo_is_told_the_interface_that_leads_to_the_other_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/cluster trains over it: there, as on Debian, a host's own name is the loopback."""
    world = world_from(MANY | {"PIPELINE_HOSTS": "n1 n2 n3"})
    interfaces = {"n1": "lo", "n2": None, "n3": "eth7"}
    monkeypatch.setattr("pipeline.distributed.launch.interface_towards", interfaces.__getitem__)
    monkeypatch.setattr("os.environ", {**MANY, "PIPELINE_HOSTS": "n1 n2 n3"})
    export(world)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"
    monkeypatch.setattr("os.environ", {**MANY, "PIPELINE_HOSTS": "n1 n2 n3", "GLOO_SOCKET_IFNAME": "mine"})
    export(world)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "mine"


def test_the_loopback_leads_to_this_host() -> None:
    assert interface_towards("127.0.0.1") == "lo"
    assert interface_towards("no-such-host.invalid") is None


def test_which_gpu_is_a_ranks() -> None:
    assert [device_index(rank, 8, {}) for rank in (0, 7, 8)] == [0, 7, None]
    assert device_index(3, 1, SRUN) == 0  # --gpus-per-task=1: the task sees its own alone
    assert device_index(3, 1, TORCHRUN) is None
    assert device_index(3, 2, SRUN) is None
