"""Two recipes on the same batches and masks, several seeds each: held-out losses with intervals, and what they cost.

    python -m benchmarks.parity --data CORPUS --out DIR --recipes tiny tiny-bert --seeds 0 1 2
    python -m benchmarks.parity --data CORPUS --out DIR --recipes small small-bert --seeds 0 --ranks 2

A run is `pretrain`, into DIR/RECIPE-SEED; one that is finished is read, one that was stopped goes on. `--set` changes a setting
of all of them, `--variant NAME=RECIPE,key=value,…` adds a recipe with other settings. The last recipe is what the others are
measured against: at which fraction of its tokens they reach its final loss, by a line through the evaluations.
"""

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.load import load_recipe
from pipeline.finetune.scorecard import interval
from pipeline.run.metrics_file import METRICS, read_metrics


@dataclass(frozen=True)
class Candidate:
    """A recipe under a name, with settings of its own."""

    name: str
    recipe: str
    settings: tuple[str, ...] = ()


def candidate(text: str) -> Candidate:
    """NAME, a recipe, or NAME=RECIPE,key=value,…"""
    name, equals, rest = text.partition("=")
    recipe, *settings = rest.split(",") if equals else [name]
    return Candidate(name, recipe, tuple(settings))


def trained(one: Candidate, seed: int, args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(summary, evaluations) of the finished run."""
    run = args.out / f"{one.name}-{seed}"
    if not (run / "summary.json").exists():
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(args.ranks)]
        settings = [f"train.seed={seed}", *args.set, *one.settings]
        words = ["pretrain", "--recipe", one.recipe, "--data", str(args.data), "--run", str(run)]
        words += [word for setting in settings for word in ("--set", setting)]
        subprocess.run([sys.executable, *(launcher if args.ranks > 1 else []), "-m", "pipeline", *words], check=True)
    return json.loads((run / "summary.json").read_text(encoding="utf-8")), read_metrics(run / METRICS)[1]


def shown(values: list[float]) -> str:
    """Mean ± half the width of its 95% interval; of one value the value."""
    mean, half = interval(values)
    return f"{mean:.3f}" if half is None else f"{mean:.3f} ± {half:.3f}"


def reached(evaluations: list[dict[str, Any]], key: str, loss: float) -> float:
    """The step at which the loss came down to `loss`; infinite if it did not."""
    points = [(row["step"], row[key]) for row in evaluations]
    for (step, value), (next_step, next_value) in itertools.pairwise(points):
        if next_value <= loss < value:
            return float(step + (next_step - step) * (value - loss) / (value - next_value))
    return math.inf


def table(candidates: list[Candidate], results: dict[str, list[Any]], settings: list[str]) -> str:
    """Markdown."""
    heads = ("", "all masked", "on [MASK]", "tokens to the last row's loss", "parameters", "state", "clipped", "tokens/s")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    baseline = results[candidates[-1].name]
    for one in candidates:
        runs, steps = results[one.name], load_recipe(one.recipe, [*settings, *one.settings]).train.steps
        pairs = list(zip(runs, baseline, strict=True))
        share = [reached(rows, "heldout_loss", of["heldout_loss"]) / steps for (_, rows), (of, _) in pairs]
        summaries = [summary for summary, _ in runs]
        state = 0 if load_recipe(one.recipe).optim.rule == "sgd" else 2
        cells = [
            one.name,
            shown([s["heldout_loss"] for s in summaries]),
            shown([s["heldout_mask_loss"] for s in summaries]),
            "–" if one is candidates[-1] else f"{statistics.fmean(share):.2f}",
            f"{summaries[0]['parameters']:,}",
            f"{state} a parameter",
            f"{statistics.fmean(s['clipped_fraction'] for s in summaries):.1%}",
            f"{statistics.median(s['tokens_per_s'] for s in summaries):,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    first = baseline[0][0]
    entropy = f"Unigram entropy of the held-out text {first['heldout_unigram_entropy_nats']:.3f}"
    lines.append(f"\n{entropy}; {first['tokens']:,} tokens a run.")
    return "\n".join(lines)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a corpus")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the runs and of parity.md, parity.json")
    parser.add_argument("--recipes", nargs="+", default=["tiny", "tiny-bert"], help="the last one is the baseline")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=RECIPE,KEY=VALUE,…", help="repeatable")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for all of them; repeatable")
    args = parser.parse_args()
    candidates = [*(candidate(text) for text in args.variant), *(candidate(text) for text in args.recipes)]
    results = {one.name: list[Any]() for one in candidates}
    for seed in args.seeds:
        for one in candidates:
            results[one.name].append(trained(one, seed, args))
    text = table(candidates, results, args.set)
    (args.out / "parity.md").write_text(text + "\n", encoding="utf-8")
    (args.out / "parity.json").write_text(json.dumps({n: [s for s, _ in runs] for n, runs in results.items()}, indent=1))
    print(text)


if __name__ == "__main__":
    main()
