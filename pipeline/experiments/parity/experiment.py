"""parity: recipes side by side on the same batches, several seeds each, with the trials on either side."""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.experiments.found import Cell, Found
from pipeline.experiments.text import add_data_argument, add_set_argument

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.experiments.parity.runs import Candidate, Run
    from preprocessing.corpus.reader import Corpus

SUMMARY = "SGD beside AdamW at equal tokens, with as many trials on either side"
COST, QUICK_COST = "10 minutes a seed, of tiny", "a minute"
TEXT = """\
Recipes on the same batches and masks: held-out losses with 95% intervals over the seeds, the fraction of its tokens at
which each comes down to the last one's final loss, state, speed. A run is a `pretrain` into OUT/NAME-SEED: one that is
finished is read, one that was stopped goes on, and `report --compare` shows them. Every recipe gets the same trials,
--factors times its own rate (from a balanced start lr · wd · steps) on the first seed; the best of them counts, and its
other seeds are free of that selection.
"""
RECIPES, SEEDS, FACTORS = ("tiny", "tiny-bert"), (0,), (1.0,)
QUICK_FACTORS = (1.0, 4.0)
QUICK = (
    *("model.layers=1", "model.width=32", "model.heads=2", "model.ffn_width=64", "data.seq_len=32", "train.steps=100"),
    *("train.eval_every_steps=20", "train.eval_sequences=128", "train.checkpoint_every_steps=100", "batch.global_sequences=16"),
)
QUICK_WARMUP = "optim.schedule.warmup_steps=10"  # of AdamW's recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Who, on what, how often."""
    add_data_argument(parser)
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="the last one is the baseline; default: tiny tiny-bert")
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME=RECIPE,KEY=VALUE,…",
        help="a recipe with other settings; repeatable",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, metavar="N", help="default: 0")
    parser.add_argument("--factors", type=float, nargs="+", metavar="F", help="of the rates that are tried; default: 1")
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="processes of a run; default: 1")
    add_set_argument(parser, "of --recipes")


def run(args: argparse.Namespace) -> Found:
    """All runs, then the table."""
    from pipeline.experiments.parity.runs import candidate
    from pipeline.experiments.text import corpus_of

    settings = [*(QUICK if args.quick else ()), *args.overrides]
    own = {"tiny-bert": f"tiny-bert=tiny-bert,{QUICK_WARMUP}"} if args.quick else {}
    names = [*args.variant, *(own.get(name, name) for name in args.recipes or RECIPES)]
    factors = args.factors or (QUICK_FACTORS if args.quick else FACTORS)
    corpus = corpus_of(args.data, args.out)
    return parity([candidate(name, settings) for name in names], args.seeds, factors, corpus, args.out, args.ranks)


def parity(
    candidates: "Sequence[Candidate]", seeds: Sequence[int], factors: Sequence[float], corpus: "Corpus", out: Path, ranks: int
) -> Found:
    """Every candidate's trials on the first seed, then its best one on all seeds; the last candidate is the baseline."""
    from pipeline.config.load import as_dict
    from pipeline.experiments.parity.runs import trained

    trials: dict[str, dict[float, Run]] = {}
    runs: dict[str, list[Run]] = {}
    for one in candidates:
        of_factor = partial(trained, one, data=corpus.directory, out=out, ranks=ranks)
        trials[one.name] = {factor: of_factor(factor, seed=seeds[0]) for factor in factors}
        best = min(factors, key=lambda factor: trials[one.name][factor].heldout_loss)
        runs[one.name] = [of_factor(best, seed=seed) for seed in seeds]
    baseline = candidates[-1].name
    rows = [_row(one, trials[one.name], runs[one.name], runs[baseline]) for one in candidates]
    measured = {
        "trials": {name: {factor: run.heldout_loss for factor, run in of.items()} for name, of in trials.items()},
        "runs": {name: [{**run.summary, "evaluations": run.evaluations} for run in of] for name, of in runs.items()},
        "baseline": baseline,
    }
    return Found(
        finding=_finding(trials, runs, baseline, seeds),
        columns=(
            "",
            "all masked",
            "on [MASK]",
            "tokens to the baseline's loss",
            "parameters",
            "state",
            "clipped",
            "tokens/s",
            "trials",
        ),
        rows=rows,
        seeds=seeds,
        settings={one.name: {factor: as_dict(one.config(factor)) for factor in factors} for one in candidates},
        measured=measured,
        draw=partial(_draw, runs),
        size_inches=(6.0, 3.6),
    )


def _row(one: "Candidate", trials: "Mapping[float, Run]", runs: "Sequence[Run]", baseline: "Sequence[Run]") -> list[Cell]:
    config, summaries = one.config(), [run.summary for run in runs]
    return [
        one.name,
        shown([of["heldout_loss"] for of in summaries]),
        shown([of["heldout_mask_loss"] for of in summaries]),
        "–" if runs is baseline else f"{share(runs, baseline, config.train.steps):.2f}",
        summaries[0]["parameters"],
        f"{0 if config.optim.rule == 'sgd' else 2} a parameter",
        f"{statistics.fmean(of['clipped_fraction'] for of in summaries):.1%}",
        f"{statistics.median(of['tokens_per_s'] for of in summaries):,.0f}",
        "; ".join(f"× {factor:g}: {run.heldout_loss:.3f}" for factor, run in trials.items()),
    ]


def share(runs: "Sequence[Run]", baseline: "Sequence[Run]", steps: int) -> float:
    """The mean fraction of the steps at which the runs come down to the last loss of the baseline's run of the same seed."""
    from pipeline.experiments.parity.runs import reached

    pairs = zip(runs, baseline, strict=True)
    return statistics.fmean(reached(run.evaluations, of.heldout_loss) / steps for run, of in pairs)


def shown(values: Sequence[float]) -> str:
    """Mean ± half the width of its 95% interval; of one value the value."""
    from pipeline.finetune.scorecard import interval

    mean, half = interval(values)
    return f"{mean:.3f}" if half is None else f"{mean:.3f} ± {half:.3f}"


def _finding(
    trials: "Mapping[str, Mapping[float, Run]]", runs: "Mapping[str, Sequence[Run]]", baseline: str, seeds: Sequence[int]
) -> str:
    first = runs[baseline][0].summary
    ends = {name: [run.heldout_loss for run in of] for name, of in runs.items()}
    differences = "; ".join(
        f"{name} {statistics.fmean(ends[name]) - statistics.fmean(ends[baseline]):+.3f}" for name in runs if name != baseline
    )
    tried = len(next(iter(trials.values())))
    return (
        f"Held-out loss less {baseline}'s after {first['tokens']:,} tokens each, mean of {len(seeds)} seed(s): {differences}. "
        f"Each had {tried} trial(s) of its rate on seed {seeds[0]}, and its best one counts. The unigram entropy of the "
        f"held-out text is {first['heldout_unigram_entropy_nats']:.3f}. This is of this size, these texts and this budget of "
        f"trials; it says nothing of larger ones."
    )


def _draw(runs: "Mapping[str, Sequence[Run]]", figure: "Figure") -> None:
    from preprocessing.base.plots import BLUE, COMPARE_COLOURS

    axes = figure.subplots()
    for (name, of), colour in zip(runs.items(), (BLUE, *COMPARE_COLOURS), strict=False):
        for number, run in enumerate(of):
            points = [(row["step"], row["heldout_loss"]) for row in run.evaluations]
            axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=3, label=None if number else name)
    axes.set(title="Held-out loss", xlabel="step")
    axes.legend()
