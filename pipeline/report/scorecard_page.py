"""The scorecard as an HTML page: OUT/scorecard.html, beside scorecard.json."""

import json
from pathlib import Path
from typing import Any

from pipeline.finetune.scorecard import PAPER, about, cells, scorecard
from preprocessing.base.files import write_whole
from preprocessing.base.json_file import write_object
from preprocessing.base.page import render

TEMPLATE = Path(__file__).parent / "templates" / "scorecard.html"


def write_scorecard(out: Path) -> dict[str, Any]:
    """Write both files, and return what the JSON has. ValueError as `scorecard`."""
    card = scorecard(out)
    write_object(out / "scorecard.json", card)
    runs = {
        name: {"about": about(run), "config": json.dumps(run["config"], indent=1), "data": run["data"]}
        for name, run in card["runs"].items()
    }
    page = render(
        TEMPLATE,
        name=out.resolve().name,
        note=card["note"],
        models=list(PAPER),
        paper=[(model, [figures[task] for task in ("mnli", "squad1", "squad2")]) for model, figures in PAPER.items()],
        rows=[cells(row) for row in card["rows"]],
        runs=runs,
    )
    write_whole(out / "scorecard.html", page.encode())
    return card
