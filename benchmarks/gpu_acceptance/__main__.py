"""Everything of this program that a CPU cannot show, on a GPU, in one command.

    python -m benchmarks.gpu_acceptance --out DIR
    python -m benchmarks.gpu_acceptance --out DIR --only speed memory
    python -m benchmarks.gpu_acceptance --out DIR --device cpu       at toy sizes: does the acceptance itself work?

A part that fails or breaks does not keep the others from running. DIR gets acceptance.md, acceptance.json, which are written
anew after every part, and the logs of what was run. Exit code 1 if a part failed or broke.
"""

import argparse
import platform
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.gpu_acceptance import attention, training
from benchmarks.gpu_acceptance.outcome import BROKE, FAILED, Check, LeftOut, Outcome, as_markdown, as_values
from benchmarks.gpu_acceptance.scope import Scope
from preprocessing.base.files import write_whole
from preprocessing.base.json_file import write_object

Part = Callable[[Scope], list[Check]]
PARTS: Mapping[str, Part] = {
    "correctness": attention.correctness,
    "invariance": attention.invariance,
    "speed": attention.speed,
    "certify": training.certify,
    "resume": training.resume,
    "memory": training.memory,
    "throughput": training.throughput,
    "losses": training.losses,
    "ranks": training.all_gpus,
    "finetune": training.finetune_and_export,
}


def run_parts(parts: Mapping[str, Part], scope: Scope, machine: Sequence[str]) -> list[Outcome]:
    """Each in turn, whatever the others did; the files of `scope.out` are up to date after each."""
    outcomes = []
    for name, part in parts.items():
        outcome = Outcome(name, " ".join((part.__doc__ or "").split()))
        began_s = time.perf_counter()
        try:
            outcome.checks = part(scope)
        except LeftOut as why:
            outcome.note = str(why)
        except Exception as error:  # whatever it is: the next part says something, too
            outcome.is_broken, outcome.note = True, f"{type(error).__name__}: {error}"
            (scope.out / f"{name}-traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        outcome.seconds = time.perf_counter() - began_s
        outcomes.append(outcome)
        print(f"{name}: {outcome.status} ({outcome.seconds:.0f} s) {outcome.note}", flush=True)
        write_whole(scope.out / "acceptance.md", as_markdown(outcomes, machine).encode())
        write_object(scope.out / "acceptance.json", as_values(outcomes, machine))
    return outcomes


def machine_lines(device: torch.device) -> list[str]:
    """What the figures are of."""
    lines = [f"- {platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}"]
    if device.type == "cuda":
        for number in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(number)
            capability = f"capability {found.major}.{found.minor}"
            lines.append(f"- GPU {number}: {found.name}, {found.total_memory / 2**30:.0f} GiB, {capability}")
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
        lines.append(f"- CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, NCCL {nccl}")
    return lines


def main() -> int:
    """Run, and say what to send back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder for everything that is found; may be there already")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: toy sizes, to try the acceptance itself"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; --device cpu tries the acceptance itself at toy sizes")
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device, 0) if args.device == "cuda" else torch.device("cpu")
    scope = Scope(device, args.out.resolve(), is_toy=args.device == "cpu")
    outcomes = run_parts({name: PARTS[name] for name in args.only}, scope, machine_lines(device))
    print(f"\n{as_markdown(outcomes, machine_lines(device))}")
    print(f"Send back {args.out}/acceptance.md, acceptance.json and the files beside them that end in .log or .txt.")
    return int(any(outcome.status in (FAILED, BROKE) for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
