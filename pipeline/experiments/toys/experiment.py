"""toys: the slides' two examples and the equivalences, in float64."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.experiments.found import Cell, Found

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUMMARY = "the slides' two examples, and what must not matter to SGD with weight decay, in float64"
COST, QUICK_COST = "2 minutes", "5 seconds"
TEXT = """\
Float64, without a model. Example 1: gradient descent on a product of 2k numbers, at rates around the slides' bound. Example 2:
an unbalanced factorisation, α = 1 to 1000, by gradient descent at its best rate, by Adam at its best, and scale invariant with
weight decay. Then the equivalence of weight decay and a growing rate, with its exponent, and both rescalings of (L, η, λ, x0).
"""


@dataclass(frozen=True)
class Size:
    """How much of it. The second example's learning rates are decades around what is stable at the smallest and largest α."""

    starts: Sequence[float]  # X(0) of the first example
    multiples: int  # rates of the first example: so many, from a tenth of the bound to three times it
    descent_steps: int
    alphas: int  # from 1 to 1000, evenly in log α
    gd_rates: int  # from 1e-7 to 1
    adam_rates: int  # from 1e-4 to 1
    most_steps: int
    path_steps: int  # of the equivalences


FULL = Size((1.2, 2.0, 4.0, 8.0), 200, 400, 10, 29, 9, 100_000, 300)
QUICK = Size((2.0, 4.0), 40, 100, 4, 15, 5, 1_000, 100)
DEPTHS, EDGES, SEED = (2, 3, 4), (0.999, 1.001), 0
LR, WEIGHT_DECAY = 0.1, 0.1  # of the scale invariant factorisation
SCALES = (1e-3, 7.0, 1e3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing more than what all experiments have."""


def run(args: argparse.Namespace) -> Found:
    """All of it."""
    return toys(QUICK if args.quick else FULL)


def toys(size: Size) -> Found:
    """The two examples and the equivalences."""
    measured: dict[str, Any] = {
        "bound": _bound(size),
        "factorisation": _factorisation(size),
        "equivalences": _equivalences(size),
    }
    return Found(
        finding=_finding(measured),
        columns=("what", "theory", "measured"),
        rows=[*_bound_rows(measured["bound"]), *_factorisation_rows(measured["factorisation"]), *_equivalence_rows(measured)],
        seeds=[SEED],
        settings={
            "size": vars(size),
            "first example": {"k": DEPTHS, "labels that agree": 0.75},
            "second example": {
                "scale invariant": {"lr": LR, "weight_decay": WEIGHT_DECAY},
                "goal": 1e-6,
                "adam betas": (0.9, 0.999),
            },
        },
        measured=measured,
        draw=partial(_draw, measured),
        size_inches=(11.0, 3.4),
    )


def _bound(size: Size) -> list[dict[str, Any]]:
    """Of each k and X(0): the bound; from which multiple of it on the loss of the last step is not below the first; losses."""
    import numpy as np

    from pipeline.experiments.toys.product import descend, divergence_bound, loss

    multiples = np.sort(np.concatenate([np.geomspace(0.01, 3, size.multiples), EDGES]))
    found = []
    for k in DEPTHS:
        for start in size.starts:
            bound = divergence_bound(k, start)
            losses, first = loss(descend(k, start, multiples * bound, size.descent_steps)), float(loss(np.array(start)))
            diverged = losses >= first
            found.append(
                {
                    "k": k,
                    "start": start,
                    "bound": bound,
                    "multiples": multiples.tolist(),
                    "first_loss": first,
                    "losses": losses.tolist(),
                    "lowest_diverged": float(multiples[diverged].min(initial=np.inf)),
                    "highest_descended": float(multiples[~diverged].max(initial=0.0)),
                    "edges": [float(losses[multiples == edge][0]) for edge in EDGES],
                }
            )
    return found


def _factorisation(size: Size) -> dict[str, Any]:
    """Steps to the goal by α, of each method; and the line through those of the scale invariant one."""
    import numpy as np

    from pipeline.experiments.toys.factorisation import (
        adam,
        best_of,
        descent,
        scale_invariant,
        slope_per_decade,
        steps_to_goal,
    )

    alphas = np.logspace(0, 3, size.alphas)
    gd = best_of(alphas.tolist(), np.logspace(-7, 0, size.gd_rates).tolist(), descent, size.most_steps)
    of_adam = best_of(alphas.tolist(), np.logspace(-4, 0, size.adam_rates).tolist(), adam, size.most_steps)
    decayed = descent(np.full(len(alphas), LR), WEIGHT_DECAY)
    steps, losses = steps_to_goal(alphas, scale_invariant, (decayed, decayed), size.most_steps)
    unbalanced = alphas >= 10
    return {
        "alphas": alphas.tolist(),
        "gd": gd,
        "adam": of_adam,
        "scale_invariant": [{"steps": float(s), "loss": float(loss)} for s, loss in zip(steps, losses, strict=True)],
        "slope_per_decade": slope_per_decade(alphas[unbalanced].tolist(), steps[unbalanced].tolist()),
        "slope_predicted": float(np.log(10) / (LR * WEIGHT_DECAY)),
        "most_steps": size.most_steps,
    }


def _equivalences(size: Size) -> dict[str, Any]:
    """Largest differences over a path: of the growing rate by the offset of its exponent, of the rescalings by c."""
    from pipeline.experiments.toys import equivalences as of

    steps = size.path_steps
    _, clipped = of.path(lambda t: of.LR, of.WEIGHT_DECAY, of.CLIP_C, steps, SEED)
    return {
        "steps": steps,
        "clipped_steps": clipped,
        "growing_rate": {offset: of.of_the_growing_rate(offset, steps, SEED) for offset in (0, 1, 2)},
        "scaled_loss": {c: of.of_a_scaled_loss(c, steps, SEED) for c in SCALES},
        "scaled_start": {c: of.of_a_scaled_start(c, steps, SEED) for c in SCALES},
    }


def _bound_rows(bounds: Sequence[dict[str, Any]]) -> list[list[Cell]]:
    return [
        [
            f"Ex 1, k = {of['k']}, X(0) = {of['start']:g}",
            f"diverges from rate {of['bound']:.4g} on",
            f"loss {of['first_loss']:.3f} → {of['edges'][0]:.3g} at 0.999 of it, {of['edges'][1]:.3g} at 1.001; lowest rate "
            f"that diverged {of['lowest_diverged']:.3g}, highest that did not {of['highest_descended']:.3g} of it",
        ]
        for of in bounds
    ]


def _factorisation_rows(of: dict[str, Any]) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for name, key in (("GD, best rate", "gd"), ("Adam, best rate", "adam"), ("scale invariant, GD + WD", "scale_invariant")):
        cells = [f"α = {alpha:.3g}: {_steps(run)}" for alpha, run in zip(of["alphas"], of[key], strict=True)]
        rows.append([f"Ex 2, {name}: steps to 1e-6", None, "; ".join(cells)])
    slope = f"ln 10/(lr·wd) = {of['slope_predicted']:.1f} steps a decade of α"
    return [*rows, ["Ex 2, scale invariant, from α = 10 on", slope, f"{of['slope_per_decade']:.1f}"]]


def _steps(run: dict[str, float]) -> str:
    return f"{run['steps']:.0f}" if run["steps"] < float("inf") else f"never (loss {run['loss']:.3f})"


def _equivalence_rows(measured: dict[str, Any]) -> list[list[Cell]]:
    of = measured["equivalences"]
    rates: list[list[Cell]] = [
        [f"no WD at η·(1 - ηλ)^(-2t{-offset or ''})", "0" if offset == 1 else "not 0", f"directions differ by {value:.1e}"]
        for offset, value in of["growing_rate"].items()
    ]
    worst = {name: f"{max(of[name].values()):.1e}" for name in ("scaled_loss", "scaled_start")}
    return [
        *rates,
        ["(cL, η/c, cλ, x0), c = 1e-3, 7, 1e3", "0", f"iterates differ by {worst['scaled_loss']}"],
        ["(L, c²η, λ/c², c·x0), c = 1e-3, 7, 1e3", "0", f"directions differ by {worst['scaled_start']}"],
    ]


def _finding(measured: dict[str, Any]) -> str:
    bounds, of, same = measured["bound"], measured["factorisation"], measured["equivalences"]
    above = sum(b["edges"][1] >= b["first_loss"] for b in bounds)
    exact = [b for b in bounds if b["edges"][0] < b["first_loss"]]
    earliest = min(b["lowest_diverged"] for b in bounds)
    return (
        f"Just above the slides' bound gradient descent diverged in {above} of {len(bounds)} cases. Divergence begins there in "
        f"{len(exact)} of them, those that start far above the minimiser; nearer to it the curvature at the minimiser ends the "
        f"stable rates earlier, at {earliest:.2g} of the bound in the worst case: the bound is sufficient for divergence, not "
        f"necessary. Within {of['most_steps']:,} steps GD at its best rate reached 1e-6 up to {_largest(of, 'gd')}, Adam up to "
        f"{_largest(of, 'adam')}; scale invariant GD + WD, at one rate for all α, up to {_largest(of, 'scale_invariant')}, in "
        f"{of['slope_per_decade']:.1f} more steps a decade where ln 10/(lr·wd) is {of['slope_predicted']:.1f}. Weight decay is "
        f"the growing rate η·(1 - ηλ)^(-2t-1) to {same['growing_rate'][1]:.0e}; an exponent off by one is off by "
        f"{same['growing_rate'][0]:.0e}. Both rescalings hold to rounding, over a path of which {same['clipped_steps']} of "
        f"{same['steps']} steps were clipped."
    )


def _largest(of: dict[str, Any], key: str) -> str:
    reached = [alpha for alpha, run in zip(of["alphas"], of[key], strict=True) if run["steps"] < float("inf")]
    return f"α = {max(reached):.0f}" if reached else "no α"


def _draw(measured: dict[str, Any], figure: "Figure") -> None:
    from pipeline.experiments.axes import logarithmic
    from preprocessing.base.plots import BLUE, GREEN, GREY, ORANGE, PURPLE

    left, middle, right = figure.subplots(1, 3)
    start = max(of["start"] for of in measured["bound"])
    for of, colour in zip([b for b in measured["bound"] if b["start"] == start], (BLUE, ORANGE, GREEN), strict=True):
        shown = [min(loss, 1e3) for loss in of["losses"]]
        left.plot(of["multiples"], shown, ".-", color=colour, markersize=3, linewidth=0.8, label=f"k = {of['k']}")
    left.axvline(1, color=GREY, linewidth=1)
    logarithmic(left, "both")
    left.set(title=f"Ex 1: last loss, X(0) = {start:g}", xlabel="rate over the bound", ylim=(0.3, 2e3), xlim=(0.1, 3))
    left.legend()
    of = measured["factorisation"]
    named = {"gd": ("GD", ORANGE), "adam": ("Adam", PURPLE), "scale_invariant": ("scale invariant, GD + WD", BLUE)}
    for key, (name, colour) in named.items():
        middle.plot(of["alphas"], [run["steps"] for run in of[key]], "o-", color=colour, markersize=3, label=name)
    logarithmic(middle, "x")
    middle.set(title="Ex 2: steps to 1e-6", xlabel="α", ylim=(0, 10 * of["slope_predicted"]))
    middle.legend(fontsize=7)
    same = measured["equivalences"]
    bars = {
        "-2t": same["growing_rate"][0],
        "-2t-1": same["growing_rate"][1],
        "-2t-2": same["growing_rate"][2],
        "loss × c": max(same["scaled_loss"].values()),
        "start × c": max(same["scaled_start"].values()),
    }
    right.bar(list(bars), [max(value, 1e-17) for value in bars.values()], color=[GREY, BLUE, GREY, BLUE, BLUE])
    logarithmic(right, "y")
    right.tick_params(axis="x", labelsize=7)
    right.set(ylim=(1e-17, 1), title="Equivalences: largest difference")
