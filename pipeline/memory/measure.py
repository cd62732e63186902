"""The same system run for real, each in fresh processes: what lived when, beside the prediction."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.config.load import as_dict
from pipeline.distributed.launch import LAUNCHER_VARIABLES
from pipeline.memory.system import System


@dataclass(frozen=True)
class Measurement:
    """Bytes of the rank that holds most: `live` at the end of init, forward, backward and step, `peak` within the last three.

    `peak_rss` is the process' largest resident memory, which on a CPU has the interpreter and all libraries in it.
    """

    live: dict[str, int]
    peak: dict[str, int]
    peak_rss: int
    losses: list[float]
    device: str

    @property
    def largest(self) -> int:
        """Bytes at the worst moment of a step."""
        return max(self.peak.values())


def measure(system: System) -> Measurement:
    """Train a few steps on random tokens, on `world_size` ranks of this machine. ValueError with the reason if they fail."""
    room = torch.cuda.device_count() or max(4, len(os.sched_getaffinity(0)))
    if system.world_size > room:
        raise ValueError(f"{system.world_size} ranks: not measured: this machine has room for {room}")
    specification = {
        "name": system.name,
        "config": as_dict(system.config),
        "vocab_size": system.vocab_size,
        "world_size": system.world_size,
    }
    launcher = [sys.executable]
    if system.world_size > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(system.world_size)]
    with tempfile.TemporaryDirectory() as folder:
        command = [*launcher, "-m", "pipeline.memory.worker", json.dumps(specification), folder]
        outer = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
        outer = {name: value for name, value in outer.items() if not name.startswith("SLURM_")}  # its own ranks, not a job's
        threads = max(1, len(os.sched_getaffinity(0)) // system.world_size)
        environment = {**outer, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        files = sorted(Path(folder).glob("*.json"))
        if done.returncode or len(files) != system.world_size:
            lines = [line for line in done.stderr.splitlines() if "rror" in line] or done.stderr.splitlines()[-1:]
            why = (
                "killed, most likely for its memory" if done.returncode in (-9, 137) else (lines or ["no message"])[-1].strip()
            )
            raise ValueError(f"{system.name}, ZeRO {system.stage}, {system.world_size} ranks: not measured: {why}")
        ranks = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return Measurement(
        live={name: max(rank["live"][name] for rank in ranks) for name in ranks[0]["live"]},
        peak={name: max(rank["peak"][name] for rank in ranks) for name in ranks[0]["peak"]},
        peak_rss=max(rank["peak_rss"] for rank in ranks),
        losses=ranks[0]["losses"],
        device=ranks[0]["device"],
    )
