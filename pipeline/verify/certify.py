"""`certify`: is what this machine's DeepSpeed does the recipe on paper?

A small model of each kind is trained for 20 steps by the real engine, under every file of ds_configs/, and held against
`reference.Reference`. In fp32 the reference computes its own gradients, from the whole global batch in float64, so that
reduction, accumulation, partition and update are all in the difference. In bf16 a gradient has 8 bits whatever one does:
there the reference is given the gradients that the engine's ranks hold after the reduction, so that the update is held to
the same tolerance, and those gradients are compared with the float64 ones separately.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch

from pipeline.config.ds_config import DS_CONFIGS, load_ds_config
from pipeline.distributed.launch import World
from pipeline.engine.processes import start_processes
from pipeline.verify.cell import CASES, TAILS, TIED, run_cell
from pipeline.verify.comparison import STEPS, Cell, Result


def cells(matrix: str, world_size: int, ds_configs: Sequence[str]) -> list[Cell]:
    """quick: every mechanics once at each world size, alone without and among several ranks with accumulation, the first with
    heavy tails and the last with a tied embedding; full: all combinations."""
    if matrix == "quick":
        alike = [Cell(name, *(("paper", 2) if world_size > 1 else ("matrix", 1))) for name in ds_configs]
        return [*alike, Cell(ds_configs[0], TAILS, 1), Cell(ds_configs[-1], TIED, 1)]
    return [Cell(name, case, accumulation) for name in ds_configs for case in CASES for accumulation in (1, 4)]


def shipped() -> list[str]:
    """The names of ds_configs/, stage 3 last: it replaces torch's linear for the rest of the process."""
    return sorted(path.stem for path in DS_CONFIGS.glob("*.json"))


def certify_here(matrix: str, ds_configs: Sequence[str], world: World) -> list[Result]:
    """The matrix at the world size of this process' launcher."""
    device = start_processes(world)
    return [run_cell(cell, world, device) for cell in cells(matrix, world.size, ds_configs)]


def certify_all(matrix: str, ds_configs: Sequence[str]) -> list[Result]:
    """The matrix at several world sizes, each started under torchrun on this machine."""
    for name in ds_configs:
        load_ds_config(name)  # a wrong name is told before anything starts
    gpus = torch.cuda.device_count()
    results = []
    for size in (1, 2) if matrix == "quick" else (1, 2, 4):
        if gpus and size > gpus:
            print(f"{size} ranks: not run, {gpus} GPUs here", file=sys.stderr)
            continue
        print(f"{size} ranks: {len(cells(matrix, size, ds_configs))} runs of {STEPS} steps", file=sys.stderr, flush=True)
        results += _certify_under_torchrun(matrix, ds_configs, size)
    return results


def _certify_under_torchrun(matrix: str, ds_configs: Sequence[str], size: int) -> list[Result]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    chosen = [word for name in ds_configs for word in ("--ds-config", name)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "results.json"
        command = [*launcher, "-m", "pipeline", "certify", "--matrix", matrix, *chosen, "--json-file", str(out)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if not out.exists():
            raise ValueError(f"{size} ranks did not finish: {_first_error(done.stderr)}")
        return [Result(**row) for row in json.loads(out.read_text(encoding="utf-8"))]


def _first_error(text: str) -> str:
    lines = [line for line in text.splitlines() if "error" in line.lower()]
    return lines[0] if lines else text[-300:] or "no message"


def table(results: Sequence[Result]) -> str:
    """One line for each mechanics and world size: its largest differences over cases and accumulation."""
    width = max(len(name) for name in ("ds_config", *(r.ds_config for r in results))) + 2
    lines = [
        f"{'ds_config':<{width}}{'ranks':>6}{'runs':>6}{'parameters':>12}{'norms':>9}{'bf16 gradient':>15}{'clipped':>9}  "
    ]

    def key(r: Result) -> tuple[str, int]:
        return r.ds_config, r.world_size

    for (ds_config, world_size), group in groupby(sorted(results, key=key), key=key):
        rows = list(group)
        gradients = [r.gradient for r in rows if r.gradient is not None]
        gradient = f"{max(gradients):.1e}" if gradients else "–"
        clipped = sum(r.clipped_steps for r in rows) / (STEPS * len(rows))
        verdict = "FAIL" if any(r.problem for r in rows) else "PASS"
        worst = f"{max(r.parameters for r in rows):>12.1e}{max(r.norms for r in rows):>9.1e}"
        lines.append(f"{ds_config:<{width}}{world_size:>6}{len(rows):>6}{worst}{gradient:>15}{clipped:>9.0%}  {verdict}")
    for r in results:
        if r.problem:
            lines.append(f"FAIL {r.ds_config}, {r.world_size} ranks, {r.case}, accumulation {r.accumulation}: {r.problem}")
    return "\n".join(lines)
