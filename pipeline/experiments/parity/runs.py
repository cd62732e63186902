"""The runs behind the comparison: each is a `pretrain`, which is read if it is finished and goes on if it was stopped."""

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.load import load_recipe
from pipeline.config.schema import RunConfig
from pipeline.distributed import stop_signals
from pipeline.run.metrics_file import METRICS, read_metrics

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class Candidate:
    """A recipe under a name, with settings of its own."""

    name: str
    recipe: str
    settings: tuple[str, ...] = ()

    def config(self, factor: float = 1.0) -> RunConfig:
        """With its learning rate times `factor`."""
        return load_recipe(self.recipe, [*self.settings, *self.faster(factor)])

    def faster(self, factor: float) -> tuple[str, ...]:
        """The settings of a trial: what its recipe has for a rate, times `factor`. From a balanced start that is
        lr · wd · steps: nothing else of lr and weight decay matters there."""
        if factor == 1:
            return ()
        config = load_recipe(self.recipe, self.settings)
        if config.model.init == "balanced":
            return (f"optim.decay_budget={factor * config.optim.lr * config.optim.weight_decay * config.train.steps:.6g}",)
        return (f"optim.lr={factor * config.optim.lr:.6g}",)


@dataclass(frozen=True)
class Run:
    """A finished run: what its summary says, and its evaluations, by step."""

    summary: Mapping[str, Any]
    evaluations: Sequence[Mapping[str, Any]]

    @property
    def heldout_loss(self) -> float:
        """Over all held-out text, at the end."""
        return float(self.summary["heldout_loss"])


def candidate(text: str, settings: Sequence[str]) -> Candidate:
    """NAME, a recipe, or NAME=RECIPE,key=value,…; `settings` are those of all candidates, which its own outdo."""
    name, equals, rest = text.partition("=")
    recipe, *own = rest.split(",") if equals else [name]
    return Candidate(name, recipe, (*settings, *own))


def run_name(one: Candidate, factor: float, seed: int) -> str:
    """Of its directory: NAME-SEED, of a trial at another rate NAME-xFACTOR-SEED."""
    return f"{one.name}-{seed}" if factor == 1 else f"{one.name}-x{factor:g}-{seed}"


def pretrain_words(one: Candidate, factor: float, seed: int, data: Path, run: Path) -> list[str]:
    """What comes after `python -m pipeline`."""
    settings = [*one.settings, *one.faster(factor), f"train.seed={seed}"]
    words = ["pretrain", "--recipe", one.recipe, "--data", str(data), "--run", str(run)]
    return words + [word for setting in settings for word in ("--set", setting)]


def launch(words: Sequence[str], ranks: int) -> None:
    """Run it to its end, in processes of its own. ValueError if it fails: it has said why. SystemExit if it was stopped."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    done = subprocess.run([sys.executable, *launcher, "-m", "pipeline", *words], check=False)
    if done.returncode == stop_signals.EXIT_CODE:  # it is saved, and has said that the same command goes on
        raise SystemExit(stop_signals.EXIT_CODE)
    if done.returncode:
        raise ValueError(
            f"a run failed with exit code {done.returncode} (it says why above): python -m pipeline {' '.join(words)}"
        )


def trained(one: Candidate, factor: float, seed: int, data: Path, out: Path, ranks: int) -> Run:
    """The finished run, trained now if it is not there."""
    run = out / run_name(one, factor, seed)
    if not (run / SUMMARY_FILE).exists():
        launch(pretrain_words(one, factor, seed, data, run), ranks)
    return Run(json.loads((run / SUMMARY_FILE).read_text(encoding="utf-8")), read_metrics(run / METRICS)[1])


def reached(evaluations: Sequence[Mapping[str, Any]], loss: float) -> float:
    """The step at which the held-out loss came down to `loss`, on a line through the evaluations; that of the first evaluation
    if it was there by then, infinite if it never was."""
    points = [(row["step"], row["heldout_loss"]) for row in evaluations]
    if points[0][1] <= loss:
        return float(points[0][0])
    for (step, value), (next_step, next_value) in itertools.pairwise(points):
        if next_value <= loss < value:
            return float(step + (next_step - step) * (value - loss) / (value - next_value))
    return math.inf
