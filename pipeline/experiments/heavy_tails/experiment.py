"""heavy-tails: who learns the rare tokens, and the lengths of the rows against frequency^(1/4)."""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.experiments.found import Cell, Found
from pipeline.experiments.text import add_data_argument, add_set_argument

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.config.schema import RunConfig
    from pipeline.experiments.trial import Outcome, Trial
    from preprocessing.corpus.reader import Corpus

SUMMARY = "why Adam was needed: losses of frequent and rare tokens, and the norms of the rows"
COST, QUICK_COST = "10 minutes", "20 seconds"
TEXT = """\
Losses by token frequency over training, beside the unigram model's, for BERT under SGD and under AdamW (each at the best of its
rates), and for SIBERT under SGD with every row of its matrix normalised, as in the recipe, and with the matrix normalised as a
whole instead. Then the lengths of the rows at a fixed rate against the frequencies of their tokens.
"""
SGD, ADAMW, ROWS, WHOLE = "BERT + SGD", "BERT + AdamW", "SIBERT, rows normalised", "SIBERT, matrix normalised"
NORMS = "rows at a fixed rate"
THIRDS = ("frequent", "middle", "rare")  # of the text, not of the vocabulary
FULL = (
    *("model.width=64", "model.ffn_width=256", "data.seq_len=32", "batch.global_sequences=16", "train.steps=400"),
    *("train.eval_every_steps=50", "train.eval_sequences=512", "train.log_every_steps=50"),
)
QUICK = (
    *("model.layers=1", "model.width=32", "model.heads=2", "model.ffn_width=64", "data.seq_len=32", "train.steps=150"),
    *("batch.global_sequences=16", "train.eval_every_steps=50", "train.eval_sequences=256", "train.log_every_steps=50"),
)
# Each row's memory, 1/(4·lr·wd) steps, must see its token a few times: large batches.
FIXED_RATE = ('optim.schedule={decay="constant"}', "train.eval_every_steps=100000", "train.log_every_steps=10")
FULL_NORMS = (*FIXED_RATE, "batch.global_sequences=64", "train.steps=300", "optim.decay_budget=6")
QUICK_NORMS = (*FIXED_RATE, "batch.global_sequences=64", "batch.micro_sequences=64", "train.steps=200", "optim.decay_budget=4")
RATES, QUICK_RATES = {SGD: (0.03, 0.1, 0.3), ADAMW: (2e-3, 4e-3, 8e-3)}, {SGD: (0.1,), ADAMW: (0.015,)}
WARMUP = 0.1  # of AdamW's steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The text, and another size."""
    add_data_argument(parser)
    add_set_argument(parser, "tiny, tiny-bert")


def run(args: argparse.Namespace) -> Found:
    """All trainings, then the table."""
    from pipeline.experiments.text import corpus_of

    size, norms, rates = (QUICK, QUICK_NORMS, QUICK_RATES) if args.quick else (FULL, FULL_NORMS, RATES)
    trials = trials_of([*size, *args.overrides], [*size, *norms, *args.overrides], rates)
    return heavy_tails(trials, corpus_of(args.data, args.out), args.out)


def trials_of(
    settings: Sequence[str], of_norms: Sequence[str], rates: Mapping[str, Sequence[float]]
) -> "dict[str, list[Trial]]":
    """Of each arm the trials of which the best counts."""
    from pipeline.config.load import changed, load_recipe
    from pipeline.experiments.trial import Trial

    def bert(warmup: float, *more: str) -> "RunConfig":
        config = load_recipe("tiny-bert", [*settings, *more, "optim.schedule.warmup_steps=0"])
        return changed(config, {"optim.schedule.warmup_steps": round(warmup * config.train.steps)})

    recipe = load_recipe("tiny", settings)
    return {
        SGD: [Trial(f"{SGD}, rate {lr:g}", bert(0, "optim.rule=sgd", f"optim.lr={lr}")) for lr in rates[SGD]],
        ADAMW: [Trial(f"{ADAMW}, rate {lr:g}", bert(WARMUP, f"optim.lr={lr}")) for lr in rates[ADAMW]],
        ROWS: [Trial(ROWS, recipe)],
        WHOLE: [Trial(WHOLE, recipe, what="the tied matrix divided by its length instead of every row by its own")],
        NORMS: [Trial(NORMS, load_recipe("tiny", of_norms))],
    }


def heavy_tails(trials: "Mapping[str, Sequence[Trial]]", corpus: "Corpus", out: Path) -> Found:
    """The experiment with these trials."""
    from pipeline.experiments.heavy_tails.rows import exponents, row_lengths
    from pipeline.experiments.heavy_tails.whole_matrix import without_row_normalisation
    from pipeline.experiments.trial import outcome_of, settings_of

    def nothing(config: Any, model: Any) -> None:
        pass

    curves, by_rate = {}, {}
    for arm in (SGD, ADAMW, ROWS, WHOLE):
        change = without_row_normalisation if arm == WHOLE else nothing
        found = [outcome_of(one, corpus, out, change=partial(change, one.config.model)) for one in trials[arm]]
        by_rate[arm] = {one.config.optim.lr: outcome.heldout_loss for one, outcome in zip(trials[arm], found, strict=True)}
        curves[arm] = _curve(min(found, key=lambda outcome: outcome.heldout_loss))
    records = outcome_of(trials[NORMS][0], corpus, out, observer=row_lengths).steps
    settled, counts = records[len(records) // 2 :], corpus.unigram_counts("train")
    of_rows = exponents(settled, counts)
    measured = {"curves": curves, "held-out losses by rate": by_rate, "exponents": of_rows}
    return Found(
        finding=_finding(curves, of_rows),
        columns=("held-out loss less the unigram model's", "all", *THIRDS),
        rows=[*(_row(arm, curve[-1]) for arm, curve in curves.items()), *_exponent_rows(of_rows)],
        seeds=[0],
        settings=settings_of([one for of in trials.values() for one in of]),
        measured=measured,
        draw=partial(_draw, curves, _points(settled[-1]["rows"], counts), of_rows),
        size_inches=(11.0, 3.4),
    )


def _curve(outcome: "Outcome") -> list[dict[str, Any]]:
    """Of each evaluation: the step, the loss, and by thirds of the bins (which hold like shares of the text) the loss less the
    unigram model's."""
    curve = []
    for evaluation in outcome.evaluations:
        bins = evaluation["heldout_by_frequency"]["bins"]
        edges = [0, len(bins) // 3, 2 * len(bins) // 3, len(bins)]
        parts = {name: _gain(bins[edges[i] : edges[i + 1]]) for i, name in enumerate(THIRDS)}
        curve.append({"step": evaluation["step"], "loss": evaluation["heldout_loss"], "all": _gain(bins), **parts})
    return curve


def _gain(bins: Sequence[Mapping[str, Any]]) -> float:
    """Mean loss less the unigram model's over all predictions of the bins, on [MASK] and visible tokens alike."""
    cells = [of[shown] for of in bins for shown in ("mask", "visible") if of[shown]["predictions"]]
    total = sum(cell["predictions"] for cell in cells)
    return float(sum(cell["predictions"] * (cell["loss"] - cell["unigram_loss"]) for cell in cells) / total)


def _row(arm: str, last: Mapping[str, Any]) -> list[Cell]:
    return [arm, *(f"{last[part]:+.3f}" for part in ("all", *THIRDS))]


def _exponent_rows(of: Mapping[str, float]) -> list[list[Cell]]:
    rows = (("‖row‖ ~ frequency^p, p", "norm", "1/4"), ("σ² ~ frequency^p, p", "sigma_square", "1"))
    return [
        [
            f"{what} (theory {theory}): all rows; the more frequent half",
            f"{of[key]:.3f}; {of[f'{key}_frequent']:.3f}",
            None,
            None,
            None,
        ]
        for what, key, theory in rows
    ]


def _points(rows: Sequence[float], counts: Any) -> list[tuple[int, float]]:
    from pipeline.experiments.heavy_tails.rows import FEWEST

    return [(int(count), row) for count, row in zip(counts, rows, strict=True) if count >= FEWEST]


def _finding(curves: Mapping[str, Sequence[Mapping[str, Any]]], of: Mapping[str, float]) -> str:
    last = {arm: curve[-1] for arm, curve in curves.items()}
    gap = {third: last[WHOLE][third] - last[ROWS][third] for third in THIRDS}
    return (
        f"Against the unigram model's loss BERT + SGD ends at {last[SGD]['frequent']:+.3f} on the frequent third of the text "
        f"and {last[SGD]['rare']:+.3f} on the rare one, BERT + AdamW at {last[ADAMW]['frequent']:+.3f} and "
        f"{last[ADAMW]['rare']:+.3f}, SIBERT under SGD with its rows normalised at {last[ROWS]['frequent']:+.3f} and "
        f"{last[ROWS]['rare']:+.3f}. Taking away the normalisation of the rows, and nothing else, costs {gap['frequent']:.3f} "
        f"on the frequent and {gap['rare']:.3f} on the rare third. At a fixed rate the lengths of the rows follow "
        f"frequency^{of['norm']:.2f} over all rows and frequency^{of['norm_frequent']:.2f} over the more frequent half, where "
        f"theory has 1/4 for σ² proportional to the frequency; σ² follows frequency^{of['sigma_square']:.2f} and "
        f"frequency^{of['sigma_square_frequent']:.2f}, and a quarter of that is what the lengths can follow."
    )


def _draw(
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    points: Sequence[tuple[int, float]],
    of: Mapping[str, float],
    figure: "Figure",
) -> None:
    import numpy as np

    from pipeline.experiments.axes import logarithmic
    from preprocessing.base.plots import BLUE, GREEN, GREY, ORANGE, PURPLE

    left, middle, right = figure.subplots(1, 3)
    for (arm, curve), colour in zip(curves.items(), (ORANGE, PURPLE, BLUE, GREEN), strict=True):
        steps = [point["step"] for point in curve]
        for axes, third in ((left, "frequent"), (middle, "rare")):
            axes.plot(steps, [point[third] for point in curve], "o-", color=colour, markersize=3, label=arm)
    for axes, third in ((left, "frequent"), (middle, "rare")):
        axes.axhline(0, color=GREY, linewidth=1)
        axes.set(title=f"{third} third: loss less unigram's", xlabel="step")
    left.legend(fontsize=7)
    counts, rows = np.array(points).T
    right.plot(counts, rows, ".", color=BLUE, markersize=2)
    line = np.sort(counts)
    for power, style, name in ((0.25, "--", "frequency^(1/4)"), (of["norm"], "-", f"fitted: ^{of['norm']:.2f}")):
        height = np.exp(np.log(rows).mean() - power * np.log(counts).mean())
        right.plot(line, height * line**power, style, color=GREY, label=name)
    logarithmic(right, "both")
    right.set(title="Length of each row", xlabel="occurrences in the text")
    right.legend(fontsize=7)
