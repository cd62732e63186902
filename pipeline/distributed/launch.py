"""Rank, world size and meeting point of this process, the same way under torchrun, `deepspeed`, srun and plain python."""

import contextlib
import fcntl
import os
import re
import socket
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
HOSTS_VARIABLE = "PIPELINE_HOSTS"  # a SLURM job's nodes, expanded: slurm/job.sh sets it, for a container has no scontrol
FIRST_SPECIAL_STEP = 2**32 - 16  # slurm.h: 0xfffffffa interactive, 0xfffffffb batch script, 0xfffffffc extern, …
INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"


@dataclass(frozen=True)
class World:
    """This process among all processes of the run: its rank, their number, its number on its node, and where they meet."""

    rank: int
    size: int
    local_rank: int
    master_address: str
    master_port: int

    @property
    def is_main(self) -> bool:
        """Is this rank 0, which writes the run's files and its console output?"""
        return self.rank == 0


def is_launched(environment: Mapping[str, str]) -> bool:
    """Has a launcher (torchrun, deepspeed, srun) started this process?"""
    return "RANK" in environment or "WORLD_SIZE" in environment or _is_srun(environment)


def _is_srun(environment: Mapping[str, str]) -> bool:
    return "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment and not is_shell_of_allocation(environment)


def is_shell_of_allocation(environment: Mapping[str, str]) -> bool:
    """Is this step no srun's, but the shell of an interactive allocation (salloc) or a batch script? SLURM numbers such steps
    from the top, and gives them the allocation's SLURM_NTASKS, though there is one process."""
    step = environment.get("SLURM_STEP_ID", "")
    return step.isdigit() and int(step) >= FIRST_SPECIAL_STEP


def world_from(environment: Mapping[str, str]) -> World:
    """The world that the launcher describes in `environment`.

    torchrun and `deepspeed` set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; srun sets SLURM_PROCID and the
    like, the master being the step's first node and the port a function of the job id. With neither it is one process, and so
    is the shell of an allocation.
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
        if rank >= size:  # counted from 1 by hand: all would wait for a rank 0 that nobody is
            raise ValueError(f"environment variable RANK = {rank}: expected a rank below WORLD_SIZE = {size}, counted from 0")
        return World(rank, size, local_rank, environment["MASTER_ADDR"], port)
    if _is_srun(environment):
        return _world_from_srun(environment)
    return World(0, 1, 0, "127.0.0.1", _free_port())


def _world_from_srun(environment: Mapping[str, str]) -> World:
    rank, size, local_rank = (_number(environment, n) for n in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
    return World(rank, size, local_rank, hosts(environment)[0], port_of_job(_number(environment, "SLURM_JOB_ID")))


def port_of_job(job_id: int) -> int:
    """The port at which the ranks of a SLURM job meet. It is below Linux's ephemeral ports, and two jobs on one node seldom
    have the same."""
    return 15000 + job_id % 15000


def hosts(environment: Mapping[str, str]) -> list[str]:
    """The nodes of a SLURM job step, rank 0's first. A list such as n[1-4] is expanded by PIPELINE_HOSTS or by `scontrol`,
    which alone knows every form of it; ValueError if neither can."""
    nodelist = environment.get("SLURM_STEP_NODELIST", "localhost")
    if not re.search(r"[\[,]", nodelist):
        return [nodelist]
    of_job = environment.get(HOSTS_VARIABLE, "").split()
    if str(len(of_job)) == environment.get("SLURM_STEP_NUM_NODES"):
        return of_job
    try:
        shown = subprocess.run(["scontrol", "show", "hostnames", nodelist], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        remedy = f"in a container, give what it says outside as {HOSTS_VARIABLE}"
        raise ValueError(f"`scontrol show hostnames {nodelist}` failed: {error}; {remedy}") from error
    return shown.stdout.split()


def export(world: World) -> None:
    """Put the world into os.environ, where torch.distributed and DeepSpeed look for it.

    Under srun on several nodes also the network interface that gloo is to use, unless it is set: by itself gloo takes the
    interface of this host's own name, which on Debian is the loopback."""
    values = (world.rank, world.size, world.local_rank, world.master_address, world.master_port)
    os.environ.update({name: str(value) for name, value in zip(LAUNCHER_VARIABLES, values, strict=True)})
    if _is_srun(os.environ) and INTERFACE_VARIABLE not in os.environ:
        for peer in hosts(os.environ):
            interface = interface_towards(peer)
            if interface not in (None, "lo"):
                os.environ[INTERFACE_VARIABLE] = str(interface)
                break


def interface_towards(host: str) -> str | None:
    """The name of the network interface by which this machine reaches `host`; None if it cannot be told."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing: it only chooses a route
        address = probe.getsockname()[0]
        if address.startswith("127."):
            return "lo"
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # without an IPv4 address
                request = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(request[20:24]) == address:
                    return name
    return None


_SIOCGIFADDR = 0x8915  # linux/sockios.h


def device_index(local_rank: int, visible: int, environment: Mapping[str, str]) -> int | None:
    """The index of this rank's GPU among the `visible` ones; None if there is none for it. srun can bind one GPU to each task
    (--gpus-per-task, --gpu-bind), and the task then sees that one alone."""
    if local_rank < visible:
        return local_rank
    return 0 if visible == 1 and _is_srun(environment) else None


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
