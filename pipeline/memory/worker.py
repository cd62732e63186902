"""One rank of a measurement: trains a few steps on random tokens and writes what lived when.

`python -m pipeline.memory.worker SPECIFICATION FOLDER`, as one process or under torchrun; `measure` starts it.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from pipeline.config.batch import BatchArithmetic
from pipeline.config.ds_config import deepspeed_dictionary, load_ds_config
from pipeline.config.load import from_dict
from pipeline.distributed.launch import world_from
from pipeline.engine.build import build_engine
from pipeline.engine.processes import start_processes, sum_over_ranks
from pipeline.memory.live import LiveBytes
from pipeline.memory.system import System, random_micro_batch
from pipeline.model.build import build_model
from pipeline.optim.groups import parameter_groups
from pipeline.optim.optimizer import PretrainingOptimizer

STEPS, COUNTED = 5, 3  # the engine finds its rhythm in the first ones (stage 3 learns what to gather when)
PHASES = ("forward", "backward", "step")
SEED = 0


def measure_here(system: System) -> dict[str, Any]:
    """Live bytes and peaks of this rank in the last micro batch of a step: the smallest of several steps, for gloo's threads
    release what they have sent when the machine lets them, sometimes after the phase."""
    world = world_from(os.environ)
    device = start_processes(world)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    micro, accumulation = system.micro_sequences, 2 if system.accumulates else 1
    batch = BatchArithmetic(world.size, micro, accumulation, micro * accumulation * world.size)
    dictionary = deepspeed_dictionary(load_ds_config(system.config.train.ds_config), batch)
    losses = []
    with LiveBytes(device) as live:
        model = build_model(system.config, system.vocab_size).to(device)
        optimizer = PretrainingOptimizer(parameter_groups(model, system.config))
        built = build_engine(model, optimizer, dictionary, device, system.config.train.split_masters)
        for _ in range(4):
            sum_over_ranks(torch.zeros(1, device=device))  # gloo's threads let go of what they sent before
        live.mark("init")
        for step in range(STEPS):
            for _ in range(accumulation):
                micro_batch = random_micro_batch(system, generator).to(device)
                live.mark("inputs")
                out = built(micro_batch)
                live.mark(f"forward {step}")
                built.backward(out.loss)
                losses.append(out.loss.item())
                del out, micro_batch
                live.mark(f"backward {step}")
                built.step()
                live.mark(f"step {step}")
    counted = {phase: [live.stretches[f"{phase} {step}"] for step in range(STEPS)[-COUNTED:]] for phase in PHASES}
    return {
        "live": {"init": live.stretches["init"].end, **{phase: min(s.end for s in of) for phase, of in counted.items()}},
        "peak": {phase: min(s.peak for s in of) for phase, of in counted.items()},
        "losses": losses,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def main(specification: str, folder: str) -> None:
    """Writes FOLDER/RANK.json."""
    given = json.loads(specification)
    config = from_dict(given["config"], where="the specification")
    system = System(given["name"], config, given["vocab_size"], given["world_size"])
    result = measure_here(system)
    (Path(folder) / f"{world_from(os.environ).rank}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # as in __main__: torch's threads have aborted at the end of the interpreter
