"""Which of how many processes this is: one answer under torchrun, `deepspeed`, srun, or plain python."""

import os
import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """This process among all; rank 0 is the one that writes and speaks."""

    rank: int
    size: int
    local_rank: int
    master_address: str
    master_port: int

    @property
    def is_main(self) -> bool:
        """Is this rank 0?"""
        return self.rank == 0


def is_launched(environment: Mapping[str, str]) -> bool:
    """Has a launcher (torchrun, deepspeed, srun) started this process?"""
    return "RANK" in environment or "WORLD_SIZE" in environment or _is_srun(environment)


def _is_srun(environment: Mapping[str, str]) -> bool:
    return "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment


def world_from(environment: Mapping[str, str]) -> World:
    """The world that the launcher describes in `environment`.

    torchrun and `deepspeed` set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; srun sets SLURM_PROCID and the
    like, the master being the job's first node and the port a function of the job id. With neither it is one process.
    Raises ValueError if a launcher has set some of the variables but not all, or to something that is no number.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        missing = [name for name in LAUNCHER_VARIABLES if name not in environment]
        if missing:
            raise ValueError(
                f"{', '.join(missing)} not set though RANK or WORLD_SIZE is: start under torchrun, deepspeed or srun, "
                "or unset RANK and WORLD_SIZE for a single process"
            )
        rank, size, local_rank, port = (_number(environment, n) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"))
        return World(rank, size, local_rank, environment["MASTER_ADDR"], port)
    if _is_srun(environment):
        return _world_from_srun(environment)
    return World(0, 1, 0, "127.0.0.1", _free_port())


def _world_from_srun(environment: Mapping[str, str]) -> World:
    rank, size, local_rank = (_number(environment, n) for n in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
    port = 15000 + _number(environment, "SLURM_JOB_ID") % 15000  # below Linux's ephemeral ports
    return World(rank, size, local_rank, _first_host(environment.get("SLURM_STEP_NODELIST", "localhost")), port)


def _first_host(nodelist: str) -> str:
    """The first host of a SLURM node list; only `scontrol` knows every form of it."""
    if not re.search(r"[\[,]", nodelist):
        return nodelist
    try:
        shown = subprocess.run(["scontrol", "show", "hostnames", nodelist], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"`scontrol show hostnames {nodelist}` failed: {error}; is this a SLURM job step?") from error
    return shown.stdout.split()[0]


def export(world: World) -> None:
    """Put the world into os.environ, where torch.distributed and DeepSpeed look for it."""
    values = (world.rank, world.size, world.local_rank, world.master_address, world.master_port)
    os.environ.update({name: str(value) for name, value in zip(LAUNCHER_VARIABLES, values, strict=True)})


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdigit():
        raise ValueError(f"environment variable {name} = {text!r}: expected a number; start under torchrun, deepspeed or srun")
    return int(text)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
