"""A longer training under the same name: when train.steps of a run that has begun may be raised, and how that is noted.

The learning rate of most schedules is a function of the whole length, so a run of another length is another run from its first
decayed step on. Where the rate stays until the decay begins, it is not: what has been trained so far is what the longer run
would have trained, bit for bit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.checkpoint.layout import CHECKPOINTS, step_directories, step_of
from pipeline.config.load import from_dict
from pipeline.config.schema import RunConfig
from pipeline.model.build import skeleton
from pipeline.optim.groups import parameter_groups
from pipeline.optim.schedules import learning_rates

EXTENSIONS = "extensions"  # in config.json: [{"steps": the length until then, "at_step": of the newest checkpoint}]
EXTENDABLE = ("constant", "wsd")


def lengths(run_file: Mapping[str, Any]) -> list[int]:
    """The train.steps that the run of this file had before it was extended."""
    return [extension["steps"] for extension in run_file.get(EXTENSIONS, ())]


def extended(run_dir: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """`wanted` with its train.steps noted as an extension of the run whose config.json is `found`; as it is if the steps are
    the same. ValueError, with the remedy, if the run is not one that can be made longer, or has been trained too far."""
    before = from_dict(found["config"], where=str(run_dir / "config.json"))
    after = from_dict(wanted["config"], where="the new start")
    if before.train.steps == after.train.steps:
        return dict(wanted)
    problem = _problem(run_dir, before, after, wanted.get("vocab_size", 0))
    if problem:
        raise ValueError(
            f"{run_dir} belongs to another configuration: train.steps is {before.train.steps} there, {after.train.steps} "
            f"here; {problem}"
        )
    note = {"steps": before.train.steps, "at_step": _newest_step(run_dir)}
    return {**wanted, EXTENSIONS: [*wanted.get(EXTENSIONS, ()), note]}


def put_summary_aside(run_dir: Path, steps: int) -> None:
    """A finished run that goes on is not finished: its summary keeps its figures under the name of their step."""
    summary = run_dir / "summary.json"
    if summary.exists():
        summary.rename(run_dir / f"summary.step-{steps:08d}.json")


def _problem(run_dir: Path, before: RunConfig, after: RunConfig, vocab_size: int) -> str | None:
    """Why the run cannot have the other length, with what to do instead; None if it can."""
    new_run = f"to train on from its weights, begin a new run: --from {run_dir} and another --run"
    if after.train.steps < before.train.steps:
        return f"a run that has begun is not shortened; give another --run, or {before.train.steps} steps"
    rules = {group["rule"] for group in parameter_groups(skeleton(after, vocab_size), after)}
    schedules = {"optim": after.optim.schedule, "head_optim": after.head_optim.schedule}
    for name in ("optim", "head_optim")[: 1 + ("lamb" in rules)]:
        schedule = schedules[name]
        if schedule.decay not in EXTENDABLE:
            return (
                f"{name}.schedule.decay = {schedule.decay!r} is a function of the whole length, "
                f"so it would be another training ({' and '.join(EXTENDABLE)} can be extended); {new_run}"
            )
    done = _newest_step(run_dir)
    # Both rates are the peak until the decay of the shorter run begins, and differ from then on.
    rates = [learning_rates(config, done) for config in (before, after)]
    if any(rates[0][rule] != rates[1][rule] for rule in rules):
        return (
            f"its rate falls already at step {done}, where its newest checkpoint is; {new_run}, or from an older "
            f"checkpoint: --from {run_dir / CHECKPOINTS}/step-…"
        )
    return None


def _newest_step(run_dir: Path) -> int:
    """Of the newest checkpoint, whole or not; 0 if there is none."""
    return max((step_of(directory) for directory in step_directories(run_dir)), default=0)
