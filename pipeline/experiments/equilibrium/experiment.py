"""equilibrium: norms against their prediction, and the time to it, from 0.01 to 100 times the balanced start."""

import argparse
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.experiments.found import Cell, Found
from pipeline.experiments.text import add_data_argument, add_set_argument

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.experiments.trial import Outcome, Trial
    from preprocessing.corpus.reader import Corpus

SUMMARY = "where norms settle, how long that takes, and what is clipped on the way"
COST, QUICK_COST = "10 minutes", "20 seconds"
TEXT = """\
A SIBERT at a fixed rate, begun at 0.01 to 100 times its balanced norms: the norm against what σ, lr and weight decay predict,
the steps until it is there against ln(c)/(lr·wd), the effective rate lr/||x||², the clipped steps, and every matrix's own
equilibrium; and once more from 0.01 without clipping.
"""
STARTS, QUICK_STARTS = (0.01, 0.1, 1.0, 10.0, 100.0), (0.01, 1.0, 100.0)
RECIPE = "tiny"
FIXED = ('optim.schedule={decay="constant"}', "train.eval_sequences=128")
# lr · weight_decay = decay_budget / steps: 0.01, and 0.02 in the quick one.
FULL = (
    *("model.width=64", "model.ffn_width=256", "data.seq_len=32", "batch.global_sequences=16", "train.steps=1200"),
    *("train.log_every_steps=4", "optim.decay_budget=12"),
)
QUICK = (
    *("model.layers=1", "model.width=32", "model.heads=2", "model.ffn_width=64", "data.seq_len=32", "train.steps=360"),
    *("batch.global_sequences=16", "train.log_every_steps=2", "optim.decay_budget=7.2"),
)
UNCLIPPED = "0.01, no clipping"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The text, and another size."""
    add_data_argument(parser)
    add_set_argument(parser, RECIPE)


def run(args: argparse.Namespace) -> Found:
    """All trainings, then the figures."""
    from pipeline.experiments.text import corpus_of

    settings = [*FIXED, *(QUICK if args.quick else FULL), *args.overrides]
    starts = QUICK_STARTS if args.quick else STARTS
    return equilibrium(_trials(settings, starts, also_unclipped=not args.quick), corpus_of(args.data, args.out), args.out)


def equilibrium(trials: "Sequence[Trial]", corpus: "Corpus", out: Path) -> Found:
    """The experiment with these trainings."""
    from pipeline.experiments.equilibrium.norms import matrix_norms
    from pipeline.experiments.trial import outcome_of, settings_of

    outcomes = {trial.name: outcome_of(trial, corpus, out, observer=matrix_norms) for trial in trials}
    measured = {trial.name: _figures(trial, outcomes[trial.name]) for trial in trials}
    config = trials[0].config
    return Found(
        finding=_finding(measured, config.optim.lr * config.optim.weight_decay),
        columns=(
            "start, or matrix",
            "over its equilibrium",
            "steps to arrive",
            "theory",
            "norm",
            "predicted",
            "lr/‖x‖²",
            "clipped",
        ),
        rows=[*map(_row, measured.items()), *_matrix_rows(measured["1"])],
        seeds=[config.train.seed],
        settings=settings_of(trials),
        measured=measured,
        draw=partial(_draw, measured, {name: outcome.steps for name, outcome in outcomes.items()}),
        size_inches=(11.0, 3.4),
    )


def _trials(settings: Sequence[str], starts: Sequence[float], also_unclipped: bool) -> "list[Trial]":
    from pipeline.config.load import load_recipe
    from pipeline.experiments.trial import Trial

    config, unclipped = (load_recipe(RECIPE, [*settings, *more]) for more in ((), ("optim.clip_c=inf",)))
    clipped = [Trial(f"{c:g}", config, start_scale=c) for c in starts]
    return [*clipped, Trial(UNCLIPPED, unclipped, start_scale=starts[0])] if also_unclipped else clipped


def _figures(trial: "Trial", outcome: "Outcome") -> dict[str, Any]:
    from pipeline.experiments.equilibrium.norms import arrival, matrices, mean_of, predicted_steps, prediction, settled

    optim, last, arrived = trial.config.optim, settled(outcome), arrival(outcome)
    early = [record for record in outcome.steps if arrived is None or record["step"] <= max(arrived, outcome.steps[0]["step"])]
    norm = mean_of(last, "param_norm")
    ratio = outcome.steps[0]["param_norm"] / norm
    return {
        "start_scale": trial.start_scale,
        "ratio": ratio,
        "arrival_step": arrived,
        "predicted_steps": predicted_steps(ratio, optim.lr * optim.weight_decay, optim.clip_c),
        "norm": norm,
        "predicted": prediction(last, optim.lr, optim.weight_decay),
        "effective_lr": mean_of(last, "effective_lr"),
        "clipped_before_arrival": mean_of(early, "clipped"),
        "clipped_settled": mean_of(last, "clipped"),
        "clipped_fraction": outcome.steps[-1]["clipped_fraction"],
        "largest_cosine": max(abs(record["param_grad_cosine"]) for record in outcome.steps),
        "heldout_loss": outcome.heldout_loss,
        "matrices": matrices(last, optim.lr, optim.weight_decay),
    }


def _row(named: tuple[str, Mapping[str, Any]]) -> list[Cell]:
    name, of = named
    cells = [of["ratio"], of["arrival_step"], round(of["predicted_steps"]), of["norm"], of["predicted"], of["effective_lr"]]
    return [name, *cells, f"{of['clipped_before_arrival']:.0%} before, {of['clipped_settled']:.1%} at the end"]


def _matrix_rows(of: Mapping[str, Any]) -> list[list[Cell]]:
    return [
        [name.removesuffix(".weight"), None, None, None, norms["norm"], norms["predicted"], None, None]
        for name, norms in of["matrices"].items()
    ]


def _finding(measured: Mapping[str, Mapping[str, Any]], product: float) -> str:
    from pipeline.experiments.equilibrium.norms import NEAR

    off = max(abs(of["norm"] / of["predicted"] - 1) for of in measured.values())
    of_matrices = [n["norm"] / n["predicted"] for n in measured["1"]["matrices"].values()]
    rates = [of["effective_lr"] for of in measured.values()]
    times = [
        f"from {name} {of['arrival_step']} where theory says {of['predicted_steps']:.0f}"
        for name, of in measured.items()
        if of["start_scale"] != 1 and of["arrival_step"] is not None
    ]
    losses, below = [of["heldout_loss"] for of in measured.values()], measured["0.01"]["clipped_before_arrival"]
    return (
        f"From every start the norm settles within {off:.1%} of sqrt(σ)·(lr/(wd·(2 - lr·wd)))^(1/4), lr·wd = {product:.3g}. "
        f"Steps until it is within a factor {NEAR} of that: {'; '.join(times)}. That is ln(c)/(lr·wd), "
        f"{math.log(10) / product:.0f} for every ten times, from above by weight decay, and from below because clipping limits "
        f"the growth. Before arrival {below:.0%} of the steps from 0.01 were clipped, of all steps from the balanced start "
        f"{measured['1']['clipped_fraction']:.1%}. Matrices settle at {min(of_matrices):.3f} to {max(of_matrices):.3f} of "
        f"their own predictions. The last effective rates lie within a factor {max(rates) / min(rates):.2f}, held-out losses "
        f"between {min(losses):.3f} and {max(losses):.3f}."
    )


def _draw(
    measured: Mapping[str, Mapping[str, Any]], steps: Mapping[str, Sequence[Mapping[str, Any]]], figure: "Figure"
) -> None:
    from pipeline.experiments.axes import logarithmic
    from preprocessing.base.plots import BLUE, COMPARE_COLOURS, GREY

    left, middle, right = figure.subplots(1, 3)
    for (name, records), colour in zip(steps.items(), (BLUE, *COMPARE_COLOURS), strict=False):
        at = [record["step"] for record in records]
        left.plot(at, [record["param_norm"] for record in records], color=colour, linewidth=1.2, label=name)
        middle.plot(at, [record["effective_lr"] for record in records], color=colour, linewidth=1.2)
    left.axhline(measured["1"]["predicted"], linestyle="--", color=GREY, label="predicted")
    logarithmic(left, "y")
    left.set(title="‖x‖ by the start", xlabel="step")
    left.legend(ncols=2, fontsize=7)
    logarithmic(middle, "y")
    middle.set(title="effective rate lr/‖x‖²", xlabel="step")
    pairs = [(norms["predicted"], norms["norm"]) for norms in measured["1"]["matrices"].values()]
    ends = [min(map(min, pairs)), max(map(max, pairs))]
    right.plot(ends, ends, color=GREY, linewidth=1)
    right.plot(*zip(*pairs, strict=True), "o", color=BLUE, markersize=4)
    logarithmic(right, "both")
    right.set(title="Each matrix at the end", xlabel="predicted", ylabel="‖x‖")
