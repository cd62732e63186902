"""All tasks and seeds of an --out folder in one table: mean, interval, what chance gives, and the paper's figures beside it."""

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config.load import as_dict, from_dict
from pipeline.finetune.source import INITIAL
from pipeline.finetune.start import RESULTS
from pipeline.run.directory import identity
from preprocessing.base.json_file import read_object

# Of each task: its headline, its other figures, and its column of the paper's table (section 5), in percent.
HEADLINES = {"mnli": ("matched", "accuracy"), "squad1": ("dev", "f1"), "squad2": ("dev", "f1")}
OTHERS = {
    "mnli": (("mismatched", "accuracy"),),
    "squad1": (("dev", "exact_match"),),
    "squad2": tuple(("dev", name) for name in ("exact", "HasAns_f1", "NoAns_f1", "best_f1", "best_f1_thresh", "best_exact")),
}
PAPER = {
    "BERT-base, Adam": {"mnli": 84.4, "squad1": 90.3, "squad2": 78.8},
    "SIBERT-base, SGD": {"mnli": 81.1, "squad1": 88.1, "squad2": 74.8},
    "SIBERT-base, SGD, clipping": {"mnli": 82.6, "squad1": 89.3, "squad2": 76.8},
    "SIBERT-base, clipping, 2x training": {"mnli": 83.3, "squad1": 90.3, "squad2": 80.0},
}
NOTE = "the paper's models are of BERT-base's size, pretrained for one or two million steps: a smaller one is not comparable"
# Student's t for 95%, two-sided, by degrees of freedom; of more of them the normal's.
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
REQUIRED = ("task", "seed", "figures", "source", "config", "train_time_s", "recipe", "training_rows", "steps")


def scorecard(out: Path) -> dict[str, Any]:
    """{"rows", "runs", "paper", "note"}. ValueError if there are no results, or they are of weights never trained."""
    files = sorted(out.glob(f"*/seed-*/{RESULTS}"))
    if not files:
        raise ValueError(f"{out}: no results of `python -m pipeline finetune --out {out}` in it (TASK/seed-N/{RESULTS})")
    groups: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        results = read_object(file, required=REQUIRED)
        _check_trained(file, results)
        groups.setdefault(file.parent.parent.name, []).append(results)
    for name, group in groups.items():
        _check_alike(out / name, group)
    rows = [row for name, group in groups.items() for row in _rows(name, group)]
    return {"rows": rows, "runs": {name: _run(group) for name, group in groups.items()}, "paper": PAPER, "note": NOTE}


def _check_trained(file: Path, results: Mapping[str, Any]) -> None:
    source = results["source"]
    if not source["from_scratch"] and source["distance_from_initial"] < INITIAL:
        raise ValueError(
            f"{file}: fine-tuned from {source['run']}, whose weights at step {source['step']} are the initial ones: pretrain "
            "it first; to compare with new weights there is finetune --from-scratch"
        )


def _check_alike(folder: Path, group: Sequence[Mapping[str, Any]]) -> None:
    """Seeds of one folder are of one source, one set of data and one configuration."""
    for key, of in (
        ("from different pretrained weights", lambda r: r["source"]["weights_sha256"]),
        ("from different data", lambda r: r["data"]),
        ("by different settings", partial(_settings, folder)),
    ):
        if any(of(results) != of(group[0]) for results in group):
            raise ValueError(f"{folder}: its seeds were trained {key}: they are no sample of one thing")


def _settings(folder: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """All that makes two runs different ones, but for the seed."""
    settings = identity(as_dict(from_dict(results["config"], where=f"{folder}: {RESULTS}")))
    return {**settings, "train": {key: value for key, value in settings["train"].items() if key != "seed"}}


def _rows(name: str, group: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The headline, with the paper beside it, and the other figures that the results have."""
    task = group[0]["task"]
    rows = []
    for part, figure in (HEADLINES[task], *OTHERS[task]):
        if not all(part in results["figures"] and figure in results["figures"][part] for results in group):
            continue
        values = [results["figures"][part][figure] for results in group]
        mean, half = interval(values)
        row = {"name": name, "task": task, "figure": f"{part} {figure}", "values": values, "mean": mean, "interval": half}
        if (part, figure) == HEADLINES[task]:
            row["chance"] = group[0]["figures"][part]["chance"]
            row["minus_paper"] = {model: mean - of_task[task] for model, of_task in PAPER.items()}
        rows.append(row)
    return rows


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """(mean, half of the 95% confidence interval of it by Student's t); None for a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    t = STUDENT_T[len(values) - 2] if len(values) - 2 < len(STUDENT_T) else 1.96
    return mean, t * statistics.stdev(values) / math.sqrt(len(values))


def _run(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the seeds of a folder have in common, and what they cost."""
    first = group[0]
    return {
        "source": first["source"],
        "recipe": first["recipe"],
        "seeds": [results["seed"] for results in group],
        "steps": first["steps"],
        "training_rows": first["training_rows"],
        "finetuning_time_s": sum(results["train_time_s"] for results in group),
        "data": first["data"],
        "config": first["config"],
    }


def table(card: Mapping[str, Any]) -> str:
    """The rows, for a terminal."""
    headings = ["", "figure", "seeds", "mean", "±95%", "chance", *(f"− {model}" for model in PAPER)]
    lines = [headings, *(cells(row) for row in card["rows"])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    sources = [f"{name}: {about(run)}" for name, run in card["runs"].items()]
    return "\n".join([*shown, "", *sources, f"NOTE: {card['note']}"])


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row as text."""
    half = row["interval"]
    chance, paper = row.get("chance"), row.get("minus_paper", {})
    return [
        row["name"],
        row["figure"],
        str(len(row["values"])),
        f"{row['mean']:.2f}",
        "–" if half is None else f"{half:.2f}",
        "" if chance is None else f"{chance:.2f}",
        *(f"{paper[model]:+.1f}" if paper else "" for model in PAPER),
    ]


def about(run: Mapping[str, Any]) -> str:
    """Where a folder's seeds come from, and what they cost, in one line."""
    source = run["source"]
    took = "" if source["train_time_s"] is None else f" in {source['train_time_s']:,.0f} s"  # an export does not say
    origin = (
        "from scratch"
        if source["from_scratch"]
        else f"{source['run']} ({source['recipe']}, step {source['step']:,}, {source['tokens']:,} tokens{took})"
    )
    return (
        f"{origin}; {source['encoder']}, {source['encoder_parameters']:,} parameters; {run['recipe']}, {run['steps']:,} steps "
        f"on {run['training_rows']:,} rows, {run['finetuning_time_s']:,.0f} s in all"
    )
