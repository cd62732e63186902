"""What the daemons of a test cluster read, below one directory."""

import os
from dataclasses import dataclass
from pathlib import Path

NETWORK = "10.77.0"  # of every cluster: each sees its own only
HEAD = f"{NETWORK}.1"
TEMPLATE = Path(__file__).parent / "slurm.conf.template"


@dataclass(frozen=True)
class Shape:
    """What slurm.conf declares: so many nodes, and of each its processors, GPUs and memory, which the machine need not have.

    `extra_conf`: further lines of slurm.conf. A parameter that it has already gets a new value (and each command says so on its
    standard error).
    """

    nodes: int = 3
    cpus: int = 4
    gpus: int = 2
    memory_mb: int = 8000
    extra_conf: str = ""

    def addresses(self) -> dict[str, str]:
        """The nodes and where they are."""
        return {f"n{number}": f"{NETWORK}.{10 + number}" for number in range(1, self.nodes + 1)}


def write_configuration(directory: Path, shape: Shape) -> None:
    """All files, and the folders for those that the daemons write."""
    for name in ("etc", "hosts", "dev", "state", "run", "log", "home"):
        (directory / name).mkdir()
    values = {**vars(shape), "network": NETWORK, "last": 10 + shape.nodes, "directory": directory}
    (directory / "etc" / "slurm.conf").write_text(TEMPLATE.read_text().format(**values))
    gpus = [directory / "dev" / f"nvidia{number}" for number in range(shape.gpus)]
    for gpu in gpus:
        gpu.symlink_to("/dev/null")  # only for a device does Slurm set CUDA_VISIBLE_DEVICES
    (directory / "etc" / "gres.conf").write_text("".join(f"Name=gpu File={gpu}\n" for gpu in gpus))
    addresses = {"head": HEAD, **shape.addresses()}
    for host in addresses:  # as Debian's installer writes them
        names = {"localhost": "127.0.0.1", **addresses, host: "127.0.1.1"}
        (directory / "hosts" / host).write_text("".join(f"{address} {name}\n" for name, address in names.items()))
    key = directory / "etc" / "munge.key"
    key.touch(mode=0o400)
    key.write_bytes(os.urandom(128))


def munged(directory: Path) -> list[str]:
    """The command that starts the one munged of all hosts, which reach its socket through the file system."""
    files = {"key-file": "etc/munge.key", "socket": "run/munge.socket", "pid-file": "run/munged.pid"}
    files |= {"log-file": "log/munged.log", "seed-file": "state/munged.seed"}
    return ["munged", "--force", *(f"--{option}={directory / name}" for option, name in files.items())]
