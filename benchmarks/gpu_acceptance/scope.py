"""Where the acceptance runs and how large: a GPU at real sizes, or a CPU at toy sizes, on which every part is tested."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.distributed.launch import LAUNCHER_VARIABLES

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Scope:
    """`out` gets everything that a part writes; `is_toy`: sizes for a CPU."""

    device: torch.device
    out: Path
    is_toy: bool

    @property
    def gpus(self) -> int:
        """How many ranks can run side by side on GPUs of this machine."""
        return torch.cuda.device_count() if self.device.type == "cuda" else 0

    def program(
        self, *words: str | Path, ranks: int = 1, timeout_s: float = 1800, until: Callable[[], bool] | None = None
    ) -> str:
        """Run `python -m WORDS`, under torchrun if there are several ranks; returns what it prints. RuntimeError with its last
        lines if it fails. `until`: kill it, as a lost machine would, as soon as this is so."""
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        command = [sys.executable, *launcher, "-m", *map(str, words)]
        log = self.out / f"{words[1] if len(words) > 1 else words[0]}-{time.time_ns()}.log"
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(command, cwd=ROOT, env=self._environment(), stdout=file, stderr=subprocess.STDOUT)
            code = _wait(process, timeout_s, until)
        text = log.read_text(encoding="utf-8", errors="replace")
        if code != 0 and until is None:
            raise RuntimeError(f"exit code {code} of {' '.join(command[1:])}: {_last_words(text)} (all of it: {log})")
        return text

    def corpus(self) -> Path:
        """The built-in text as a corpus, made once."""
        folder = self.out / "corpus"
        if not (folder / "manifest.json").exists():
            options = ("--vocab-size", "1024", "--heldout-fraction", "0.1", "--out", folder)
            self.program("preprocessing", "build", "--source", "builtin", *options)
        return folder

    def _environment(self) -> dict[str, str]:
        outer = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
        return outer if self.device.type == "cuda" else {**outer, "CUDA_VISIBLE_DEVICES": ""}


def _wait(process: "subprocess.Popen[bytes]", timeout_s: float, until: Callable[[], bool] | None) -> int:
    deadline_s = time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() > deadline_s or (until is not None and until()):
            process.kill()
            break
        time.sleep(0.02)
    return process.wait()


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if "rror" in line] or text.splitlines()
    return lines[-1].strip() if lines else "no message"
