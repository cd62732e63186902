"""One answer to "which rank am I" under every launcher."""

import pytest

from pipeline.launch import world_from

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


@pytest.mark.parametrize("name", TORCHRUN)
def test_half_a_launcher_is_refused(name: str) -> None:
    environment = {key: value for key, value in TORCHRUN.items() if key != name}
    with pytest.raises(ValueError, match=name):
        world_from(environment)


def test_a_rank_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="RANK = 'x'"):
        world_from({**TORCHRUN, "RANK": "x"})
