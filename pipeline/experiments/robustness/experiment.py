"""robustness: held-out losses over scales of the start and of the loss, for the recipe, its ablations, and BERT."""

import argparse
import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.experiments.found import Cell, Found
from pipeline.experiments.text import add_data_argument, add_set_argument

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.config.schema import RunConfig
    from pipeline.experiments.trial import Trial
    from preprocessing.corpus.reader import Corpus

SUMMARY = "scales of start and loss, 0.01 to 100: what survives them, and what does not"
COST, QUICK_COST = "10 minutes", "20 seconds"
TEXT = """\
The paper's two figures. The start's standard deviation (model.init_std) and the loss are multiplied by 0.01 to 100 for SIBERT's
recipe with its balanced start, with a plain start, without clipping and without weight decay, and for BERT with SGD and with
AdamW: equal steps, the same batches. BERT's rates are the best of three for either optimiser, at scale 1.
"""
INIT_SCALES, LOSS_SCALES = (0.01, 0.1, 1.0, 10.0, 100.0), (0.01, 1.0, 100.0)
QUICK_INIT_SCALES, QUICK_GRID = (0.01, 1.0, 100.0), ((0.01, 0.01), (100.0, 100.0))
FIXED = ("train.eval_sequences=256",)
FULL = ("model.width=64", "model.ffn_width=256", "data.seq_len=32", "batch.global_sequences=16", "train.steps=150")
QUICK = (
    *("model.layers=1", "model.width=32", "model.heads=2", "model.ffn_width=64", "data.seq_len=32", "train.steps=50"),
    *("batch.global_sequences=16", "train.eval_sequences=64"),
)
PLAIN = ("model.init='normal'", "model.balance_batches=1")
BUDGET = 10  # lr · wd · steps of a start that is not balanced: the rule of thumb for one that has to be forgotten
SGD_RATES, ADAMW_RATES = (0.03, 0.3, 3.0), (1e-3, 2e-3, 4e-3)
WARMUP = 0.1  # of AdamW's steps
RECIPE, ADAMW, SGD = "SIBERT, the recipe", "BERT + AdamW", "BERT + SGD"
LOWEST, BUDGETED, UNCLIPPED, UNDECAYED = (
    "SIBERT, plain start",
    f"SIBERT, plain start, budget {BUDGET}",
    "the same without clipping",
    "the same without weight decay",
)
QUICK_ARMS = (RECIPE, BUDGETED, UNDECAYED, SGD, ADAMW)
Scales = tuple[float, float]  # of the start and of the loss
Losses = Mapping[str, Mapping[Scales, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The text, and another size."""
    add_data_argument(parser)
    add_set_argument(parser, "tiny, tiny-bert")


def run(args: argparse.Namespace) -> Found:
    """All trainings, then the table."""
    from pipeline.experiments.text import corpus_of

    settings = [*FIXED, *(QUICK if args.quick else FULL), *args.overrides]
    return robustness(settings, args.quick, corpus_of(args.data, args.out), args.out)


def candidates(settings: Sequence[str]) -> "dict[str, list[RunConfig]]":
    """Of each arm the configurations of which the best at scale 1 is taken."""
    from pipeline.config.load import changed, load_recipe

    def sibert(*more: str) -> "RunConfig":
        return load_recipe("tiny", [*settings, *more])

    def bert(warmup: float, *more: str) -> "RunConfig":
        config = load_recipe("tiny-bert", [*settings, *more, "optim.schedule.warmup_steps=0"])
        return changed(config, {"optim.schedule.warmup_steps": round(warmup * config.train.steps)})

    budgeted = sibert(*PLAIN, f"optim.decay_budget={BUDGET}")
    return {
        RECIPE: [sibert()],
        LOWEST: [sibert(*PLAIN)],
        BUDGETED: [budgeted],
        UNCLIPPED: [changed(budgeted, {"optim.clip_c": math.inf})],
        UNDECAYED: [changed(budgeted, {"optim.clip_c": math.inf, "optim.weight_decay": 0.0})],
        SGD: [bert(0, "optim.rule=sgd", f"optim.lr={rate}") for rate in SGD_RATES],
        ADAMW: [bert(WARMUP, f"optim.lr={rate}") for rate in ADAMW_RATES],
    }


def cells_of(arm: str, quick: bool) -> list[Scales]:
    """The scales of an arm: the recipe's is the whole grid, the others' are its two axes."""
    starts = QUICK_INIT_SCALES if quick else INIT_SCALES
    if arm == RECIPE and not quick:
        return list(product(starts, LOSS_SCALES))
    axes = [*((start, 1.0) for start in starts), *((1.0, loss) for loss in LOSS_SCALES if loss != 1)]
    return [*axes, *QUICK_GRID] if arm == RECIPE else axes


def robustness(settings: Sequence[str], quick: bool, corpus: "Corpus", out: Path) -> Found:
    """The experiment with these settings over the recipes."""
    from pipeline.experiments.trial import outcome_of, settings_of

    losses: dict[str, dict[Scales, float]] = {}
    tried: list[Trial] = []

    def heldout(arm: str, config: "RunConfig", scales: Scales) -> float:
        tried.append(_trial(arm, config, scales))
        return outcome_of(tried[-1], corpus, out).heldout_loss

    arms = {arm: configs for arm, configs in candidates(settings).items() if not quick or arm in QUICK_ARMS}
    rates = {}
    for arm, configs in arms.items():
        at_1 = [heldout(arm, config, (1.0, 1.0)) for config in configs]
        best = configs[at_1.index(min(at_1))]
        rates[arm] = {config.optim.lr: loss for config, loss in zip(configs, at_1, strict=True)}
        losses[arm] = {(1.0, 1.0): min(at_1)}
        losses[arm] |= {scales: heldout(arm, best, scales) for scales in cells_of(arm, quick) if scales != (1.0, 1.0)}
    return _found(losses, rates, settings_of(tried), corpus)


def _trial(arm: str, config: "RunConfig", scales: Scales) -> "Trial":
    from pipeline.config.load import changed
    from pipeline.experiments.trial import Trial

    start, loss = scales
    name = f"{arm}, rate {config.optim.lr:.3g}, start {start:g}, loss {loss:g}"
    return Trial(name, changed(config, {"model.init_std": start * config.model.init_std}), loss_scale=loss)


def span(losses: Mapping[Scales, float]) -> float:
    """The worst less the best; infinite where a training failed."""
    return max(losses.values()) - min(losses.values())


def _found(losses: Losses, rates: Mapping[str, Any], settings: Mapping[str, Any], corpus: "Corpus") -> Found:
    starts = sorted({start for start, _ in losses[ADAMW]})
    shown = [*((start, 1.0) for start in starts), (1.0, 0.01), (1.0, 100.0)]
    rows: list[list[Cell]] = [[arm, *(of[scales] for scales in shown), span(of)] for arm, of in losses.items()]
    unigram = corpus.manifest.heldout_unigram_entropy_nats
    return Found(
        finding=_finding(losses, unigram),
        columns=("held-out loss", *(f"start × {start:g}" for start in starts), "loss × 0.01", "loss × 100", "span"),
        rows=rows,
        seeds=[0],
        settings=settings,
        measured={
            "losses": {arm: {f"start {s:g}, loss {c:g}": loss for (s, c), loss in of.items()} for arm, of in losses.items()},
            "spans": {arm: span(of) for arm, of in losses.items()},
            "by_rate_at_1": rates,
            "heldout_unigram_entropy_nats": unigram,
        },
        draw=partial(_draw, losses, unigram),
    )


def _finding(losses: Losses, unigram: float) -> str:
    of = losses[RECIPE]
    others = "; ".join(f"{arm} {span(cells):.3f}" for arm, cells in losses.items() if arm != RECIPE)
    goal = "within" if span(of) <= 0.03 else "missing"
    return (
        f"The recipe's held-out losses span {span(of):.2g} nats over {len(of)} scales of start and loss, {goal} the goal of "
        f"0.03: the balanced start measures the gradients of the scaled loss at the scaled weights and puts every matrix "
        f"where both cancel. Spans of the others, each over {len(losses[ADAMW])} scales (inf: a training without an end): "
        f"{others}. At scale 1 the recipe ends at {of[1.0, 1.0]:.3f}, AdamW at {losses[ADAMW][1.0, 1.0]:.3f}, BERT + SGD at "
        f"{losses[SGD][1.0, 1.0]:.3f}; the unigram entropy is {unigram:.3f}."
    )


def _draw(losses: Losses, unigram: float, figure: "Figure") -> None:
    from pipeline.experiments.axes import logarithmic
    from preprocessing.base.plots import BLUE, COMPARE_COLOURS, GREY

    left, right = figure.subplots(1, 2, sharey=True)
    colours = (BLUE, *COMPARE_COLOURS, "#333333")
    for (arm, of), colour in zip(losses.items(), colours, strict=False):
        by_start = sorted((start, value) for (start, loss), value in of.items() if loss == 1)
        by_loss = sorted((loss, value) for (start, loss), value in of.items() if start == 1)
        left.plot(*zip(*by_start, strict=True), "o-", color=colour, markersize=3, label=arm)
        right.plot(*zip(*by_loss, strict=True), "o-", color=colour, markersize=3)
    for axes in (left, right):
        axes.axhline(unigram, color=GREY, linewidth=1)
        logarithmic(axes, "x")
    left.set(title="Held-out loss by the start's scale", ylim=(None, 1.3 * unigram))
    right.set(title="by the loss' scale")
    left.legend(fontsize=7)
