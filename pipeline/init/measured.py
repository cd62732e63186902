"""Starts that are measured on text before a run begins, admin and gradinit: one number for a tensor, by which it is multiplied.

The samples are the run's first ones, taken by one process, so what is found is the same on any number of ranks.
"""

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.schema import RunConfig
from pipeline.data.batch import Batch
from pipeline.data.pretraining import PretrainingData
from pipeline.init.admin import omegas
from pipeline.init.gradinit import STEPS, Iteration, Search, Settings
from pipeline.model import token_loss
from pipeline.model.pretraining import PretrainingModel

MEASURED = ("admin", "gradinit")
REPORTS = 10  # lines of a search


class Start(TypedDict):
    """What was found: `init` is model.init, `multipliers` are by parameter, `figures` what the search saw and cost."""

    init: str
    multipliers: dict[str, float]
    figures: dict[str, Any]


Say = Callable[[str], None]
Measuring = Generator[None, None, Start]  # yields between two iterations


def measure(config: RunConfig, model: PretrainingModel, data: PretrainingData, device: torch.device, say: Say) -> Measuring:
    """Find the start of a model with its normal weights, which it has again at the end. ValueError if it has none."""
    return {"admin": _admin, "gradinit": _gradinit}[config.model.init](config, model, data, device, say)


def advance(measuring: Measuring) -> Start | None:
    """One iteration; what was found after the last one."""
    try:
        next(measuring)
    except StopIteration as end:
        found: Start = end.value
        return found
    return None


def to_the_end(measuring: Measuring) -> Start:
    """What is found, all at once."""
    while (found := advance(measuring)) is None:
        pass
    return found


@torch.no_grad()
def apply(model: nn.Module, start: Mapping[str, Any]) -> None:
    """Multiply every tensor by its number, in place. ValueError if the model has no such tensor."""
    parameters = dict(model.named_parameters())
    for name, multiplier in start["multipliers"].items():
        if name not in parameters:
            raise ValueError(f"the start that was found multiplies {name}, which the model has not: it is of another one")
        parameters[name].mul_(multiplier)


def said(start: Mapping[str, Any]) -> str:
    """What was found, in one line."""
    figures, found = start["figures"], start["multipliers"].values()
    if start["init"] == "admin":
        return (
            f"Admin: ω of {len(found)} shortcuts from {min(found):.3g} to {max(found):.3g}, profiled on {figures['tokens']:,} "
            f"tokens in {figures['time_s']:.1f} s"
        )
    exceeded = f"‖g‖_{figures['order']} above γ = {figures['gamma']:g} in {figures['constrained']} of them"
    after = (
        "none had a loss"
        if figures["last_loss"] is None
        else (f"loss after a step {figures['first_loss']:.3f} → {figures['last_loss']:.3f}")
    )
    return (
        f"GradInit: {len(found)} multipliers from {min(found):.3g} to {max(found):.3g} in {figures['iterations']} iterations "
        f"of {figures['sequences']} sequences, {figures['time_s']:.1f} s; {exceeded}; {after}"
    )


def sequences_of(config: RunConfig) -> int:
    """How many sequences make up model.init_tokens."""
    return math.ceil(config.model.init_tokens / config.data.seq_len)


def _admin(config: RunConfig, model: PretrainingModel, data: PretrainingData, device: torch.device, say: Say) -> Measuring:
    began_s = time.monotonic()
    batch = data.batch(np.arange(sequences_of(config))).to(device)
    mask_BL = batch.attention_mask
    tokens = batch.input_ids.numel() if mask_BL is None else int(mask_BL.sum())
    found = omegas(model, batch)
    yield
    return {"init": "admin", "multipliers": found, "figures": {"tokens": tokens, "time_s": time.monotonic() - began_s}}


def settings_of(config: RunConfig) -> Settings:
    """Of a search, 0 standing for what the configuration says it does."""
    wanted, step = config.model.gradinit, STEPS[config.optim.rule]
    eta, gamma = wanted.eta or config.optim.lr, wanted.gamma or step.gamma
    return Settings(step, eta, gamma, wanted.lr, wanted.betas, wanted.least)


def _gradinit(config: RunConfig, model: PretrainingModel, data: PretrainingData, device: torch.device, say: Say) -> Measuring:
    began_s, settings, total = time.monotonic(), settings_of(config), config.model.gradinit.iterations
    third = math.ceil(sequences_of(config) / 2)
    search = Search({name: p for name, p in model.named_parameters() if p.requires_grad}, settings)
    seen: list[Iteration] = []
    model.eval()
    for i in range(total):
        first, second, last = (
            _losses(model, data, config, device, range((3 * i + t) * third, (3 * i + t + 1) * third)) for t in range(3)
        )
        seen.append(search.iterate([*first, *second], [*second, *last]))
        if i == 0 or (i + 1) * REPORTS // total > i * REPORTS // total:
            say(f"GradInit {i + 1}/{total}: {_line(seen[-1], settings)}")
        yield
    search.restore()
    model.train()
    constrained = sum(iteration.constrained for iteration in seen)
    if 2 * constrained > total:
        say(
            f"note: the gradient's norm was above γ in {constrained} of {total} iterations, which then descended on it alone: "
            "set a higher model.gradinit.gamma"
        )
    losses = [iteration.loss for iteration in seen if iteration.loss is not None]
    figures = {
        "iterations": total,
        "sequences": 2 * third,
        "eta": settings.eta,
        "gamma": settings.gamma,
        "order": settings.step.order,
        "constrained": constrained,
        "first_norm": seen[0].norm,
        "last_norm": seen[-1].norm,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "time_s": time.monotonic() - began_s,
    }
    return {"init": "gradinit", "multipliers": search.multipliers(), "figures": figures}


def _line(seen: Iteration, settings: Settings) -> str:
    of_norm = f"‖g‖_{settings.step.order} = {seen.norm:.4g} (γ = {settings.gamma:g})"
    if seen.loss is None:
        return f"{of_norm}: above it, lowered"
    return f"{of_norm}, loss after a step of η = {settings.eta:g}: {seen.loss:.4f}"


def _losses(
    model: PretrainingModel, data: PretrainingData, config: RunConfig, device: torch.device, samples: Sequence[int]
) -> list[Callable[[], Tensor]]:
    """Half of a batch's loss, micro batch by micro batch."""
    size, many = _part_sequences(config, data), len(samples)
    parts = [data.batch(np.array(samples[at : at + size])).to(device) for at in range(0, many, size)]
    return [partial(_loss, model, part, len(part.input_ids) / (2 * many)) for part in parts]


def _part_sequences(config: RunConfig, data: PretrainingData) -> int:
    """A micro batch, or as much of one as has a loss that can be differentiated twice: with more logits it cannot."""
    return max(1, min(config.batch.micro_sequences, token_loss.MOST_LOGITS // (data.n_predictions * data.vocab_size)))


def _loss(model: PretrainingModel, batch: Batch, weight: float) -> Tensor:
    loss: Tensor = model(batch).loss
    return loss * weight
