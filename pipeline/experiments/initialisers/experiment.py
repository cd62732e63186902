"""initialisers: amplification by depth, and trainings without warm-up from each start."""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.experiments.found import Cell, Found
from pipeline.experiments.text import add_data_argument, add_set_argument

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.experiments.trial import Outcome, Trial
    from preprocessing.corpus.reader import Corpus

SUMMARY = "Admin and GradInit for the Post-LN BERT, beside SIBERT: amplification by depth, training without warm-up"
COST, QUICK_COST = "5 minutes", "20 seconds"
TEXT = """\
How much a small change of the weights changes the output of a Post-LN BERT, of one with Admin's shortcuts, of a Pre-LN BERT and
of SIBERT, by depth. Then BERTs of 12 and 24 layers by AdamW without warm-up at several rates, from the normal start, Admin's
and GradInit's, beside SIBERT by SGD. Matrices start with Xavier's standard deviation: BERT's 0.02 hides most of the difference.
"""
SIBERT, BERTS = "SIBERT", ("normal", "admin", "gradinit")


@dataclass(frozen=True)
class Size:
    """Of both parts. `gain`: the standard deviation of a matrix times sqrt(width), 1 is Xavier's, 0.55 BERT's at width 768."""

    amplified_layers: Sequence[int]
    amplified_width: int
    seeds: Sequence[int]
    gains: Sequence[float]  # the first is the picture's
    trained_layers: Sequence[int]
    rates: Sequence[float]
    settings: Sequence[str]  # of every training


SHAPE = ("model.width=32", "model.heads=2", "model.ffn_width=128", "data.seq_len=32")
BATCH = ("batch.global_sequences=8", "batch.micro_sequences=8", "model.init_tokens=256", "train.eval_sequences=128")
ALL = (*SHAPE, *BATCH, "train.log_every_steps=5", "train.eval_every_steps=100000")
OF_BERT = ("optim.schedule.warmup_steps=0", f"model.init_std={1 / math.sqrt(32):.4f}", "model.gradinit.lr=0.01")
FULL = Size(
    amplified_layers=(3, 6, 12, 24),
    amplified_width=64,
    seeds=(0, 1),
    gains=(1.0, 0.55),
    trained_layers=(12, 24),
    rates=(1e-3, 3e-3, 1e-2),
    settings=(*ALL, "train.steps=60", "model.gradinit.iterations=15"),
)
QUICK = Size((2, 8), 32, (0, 1), (1.0,), (6,), (3e-3,), (*ALL, "train.steps=30", "model.gradinit.iterations=10"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The text, and other settings."""
    add_data_argument(parser)
    add_set_argument(parser, "tiny-bert, and tiny")


def run(args: argparse.Namespace) -> Found:
    """Both parts."""
    from pipeline.experiments.text import corpus_of

    return initialisers(QUICK if args.quick else FULL, args.overrides, corpus_of(args.data, args.out), args.out)


def initialisers(size: Size, overrides: Sequence[str], corpus: "Corpus", out: Path) -> Found:
    """The experiment at a size."""
    from pipeline.experiments.trial import outcome_of, settings_of

    trials = _trials(size, overrides)
    amplified = {f"{gain:g}": _amplified(size, gain) for gain in size.gains}
    measured: dict[str, Any] = {
        "amplification": amplified,
        "slope": constant_step_slope(),
        "trainings": {name: _figures(outcome_of(trial, corpus, out)) for name, trial in trials.items()},
        "unigram": corpus.manifest.heldout_unigram_entropy_nats,
    }
    return Found(
        finding=_finding(size, measured),
        columns=("what", *(f"N = {2 * layers}" for layers in size.amplified_layers), "held-out loss", "start"),
        rows=[*_amplified_rows(size, measured), *_trained_rows(size, measured)],
        seeds=[*size.seeds, next(iter(trials.values())).config.train.seed],
        settings={"size": asdict(size), "trainings": settings_of(list(trials.values()))},
        measured=measured,
        draw=partial(_draw, size, measured),
        size_inches=(11.0, 3.4),
    )


def constant_step_slope() -> float:
    """∂/∂m of the loss after a plain step, over η, of ½(m - 3)² at m = 1 with η = 0.1, by the search that GradInit runs: -18 if
    the step is a constant, -16.2 if it were differentiated through."""
    import torch

    from pipeline.init.gradinit import Search, Settings, Step, gradient_of

    theta = torch.nn.Parameter(torch.tensor([1.0]))
    search = Search({"theta": theta}, Settings(Step(2, list, math.inf), 0.1, math.inf, 1e-3, (0.9, 0.98), 0.01))
    losses = [lambda: 0.5 * (theta - 3).square().sum()]
    slopes, _ = search.slopes_after_step(gradient_of(losses, [theta])[0], losses)
    return float(slopes)


def _trials(size: Size, overrides: Sequence[str]) -> "dict[str, Trial]":
    """By name: the depth, the start, the rate."""
    from pipeline.config.load import load_recipe
    from pipeline.experiments.trial import Trial

    found = {}
    for layers in size.trained_layers:
        common = [*size.settings, f"model.layers={layers}"]
        for init in BERTS:
            for rate in size.rates:
                settings = [*common, *OF_BERT, f"model.init={init}", f"optim.lr={rate}"]
                name = f"{layers} layers, {init}, {rate:g}"
                found[name] = Trial(name, load_recipe("tiny-bert", [*settings, *overrides]))
        name = f"{layers} layers, {SIBERT}"
        found[name] = Trial(name, load_recipe("tiny", [*common, *overrides]))
    return found


def _amplified(size: Size, gain: float) -> dict[str, list[float]]:
    """Of each wiring, by depth, the mean over the seeds."""
    from pipeline.experiments.initialisers.amplification import WIRINGS, amplification

    def mean(wiring: str, layers: int) -> float:
        found = [amplification(wiring, layers, size.amplified_width, gain, seed) for seed in size.seeds]
        return sum(found) / len(found)

    return {wiring: [mean(wiring, layers) for layers in size.amplified_layers] for wiring in WIRINGS}


def _figures(outcome: "Outcome") -> dict[str, Any]:
    start = outcome.start
    return {
        "heldout_loss": outcome.heldout_loss,
        "problem": outcome.problem,
        "losses": [record["loss"] for record in outcome.steps],
        "steps": [record["step"] for record in outcome.steps],
        "start": start["figures"] if start else None,
        "multipliers": start["multipliers"] if start else None,
    }


def growth(size: Size, values: Sequence[float]) -> float:
    """The exponent p of amplification ~ N^p between the shallowest and the deepest: 1 is linear, a logarithm's is near 0."""
    return math.log(values[-1] / values[0]) / math.log(size.amplified_layers[-1] / size.amplified_layers[0])


def _amplified_rows(size: Size, measured: Mapping[str, Any]) -> list[list[Cell]]:
    return [
        [f"amplification, {wiring}, gain {gain}", *values, None, f"~ N^{growth(size, values):.2f}"]
        for gain, wirings in measured["amplification"].items()
        for wiring, values in wirings.items()
    ]


def _trained_rows(size: Size, measured: Mapping[str, Any]) -> list[list[Cell]]:
    empty = [None] * len(size.amplified_layers)
    return [[name, *empty, of["heldout_loss"], _start(of)] for name, of in measured["trainings"].items()]


def _start(of: Mapping[str, Any]) -> str | None:
    if of["start"] is None:
        return None
    numbers, figures = of["multipliers"].values(), of["start"]
    if "constrained" not in figures:
        return f"ω up to {max(numbers):.2f}, {figures['time_s']:.1f} s"
    return (
        f"m {min(numbers):.2f} to {max(numbers):.2f}, ‖g‖₁ {figures['first_norm']:.0f} → {figures['last_norm']:.0f}, above γ "
        f"{figures['constrained']} of {figures['iterations']}, {figures['time_s']:.0f} s"
    )


def _best(size: Size, measured: Mapping[str, Any], layers: int, init: str) -> tuple[float, float]:
    """(the lowest loss over the rates, the highest)."""
    losses = [measured["trainings"][f"{layers} layers, {init}, {rate:g}"]["heldout_loss"] for rate in size.rates]
    return min(losses), max(losses)


def _finding(size: Size, measured: Mapping[str, Any]) -> str:
    first = measured["amplification"][f"{size.gains[0]:g}"]
    deepest = 2 * size.amplified_layers[-1]
    amplified = ", ".join(f"{wiring} {of[-1]:.3g} (~ N^{growth(size, of):.2f})" for wiring, of in first.items())
    trained = "; ".join(
        f"of {layers} layers "
        + ", ".join(f"{init} {low:.3f} to {high:.3f}" for init in BERTS for low, high in [_best(size, measured, layers, init)])
        + f", SIBERT {measured['trainings'][f'{layers} layers, {SIBERT}']['heldout_loss']:.3f}"
        for layers in size.trained_layers
    )
    return (
        f"At gain {size.gains[0]:g} and N = {deepest} sub-layers a relative change ε of the weights moves the output by ε² "
        f"times {amplified}. Without warm-up, at rates from {min(size.rates):g} to {max(size.rates):g}, held-out losses end, "
        f"{trained}; the unigram entropy is {measured['unigram']:.3f}. GradInit takes the step as a constant: its slope on the "
        f"quadratic is {measured['slope']:.1f}."
    )


def _draw(size: Size, measured: Mapping[str, Any], figure: "Figure") -> None:
    from pipeline.experiments.axes import logarithmic
    from preprocessing.base.plots import BLUE, COMPARE_COLOURS, GREY

    panels = figure.subplots(1, 1 + len(size.trained_layers))
    sub_layers = [2 * layers for layers in size.amplified_layers]
    colours = (COMPARE_COLOURS[0], COMPARE_COLOURS[1], GREY, COMPARE_COLOURS[2], BLUE)
    for (wiring, values), colour in zip(measured["amplification"][f"{size.gains[0]:g}"].items(), colours, strict=True):
        panels[0].plot(sub_layers, values, "o-", color=colour, markersize=3, linewidth=1.2, label=wiring)
    panels[0].set(title="Var[F(W) - F(W*)]/ε²", xlabel="sub-layers")
    logarithmic(panels[0], "both")
    panels[0].legend(fontsize=7)
    for axes, layers in zip(panels[1:], size.trained_layers, strict=True):
        for init, colour in zip(BERTS, (COMPARE_COLOURS[0], COMPARE_COLOURS[1], COMPARE_COLOURS[2]), strict=True):
            losses = [measured["trainings"][f"{layers} layers, {init}, {rate:g}"]["heldout_loss"] for rate in size.rates]
            axes.plot(size.rates, losses, "o-", color=colour, markersize=4, label=f"BERT, {init}")
        axes.axhline(
            measured["trainings"][f"{layers} layers, {SIBERT}"]["heldout_loss"], color=BLUE, label="SIBERT, its one rate"
        )
        axes.axhline(measured["unigram"], color=GREY, linestyle="--", linewidth=1, label="unigram entropy")
        axes.set(title=f"Held-out loss, {layers} layers, no warm-up", xlabel="AdamW's rate")
        logarithmic(axes, "x")
        axes.legend(fontsize=7)
