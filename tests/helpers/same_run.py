"""What two runs have in common that are the same: for tests that disturb one of them."""

import json
from pathlib import Path
from typing import Any

from pipeline.checkpoint.layout import step_directories
from pipeline.run.metrics_file import read_metrics

TIMES = {"tokens_per_s", "memory_bytes", "time_s", "attempt"}  # what two equal runs may differ in


def metrics(run: Path) -> list[list[dict[str, Any]]]:
    return [[{k: v for k, v in row.items() if k not in TIMES} for row in part] for part in read_metrics(run / "metrics.jsonl")]


def shards(run: Path) -> dict[str, bytes]:
    newest = step_directories(run)[0]
    return {f"{newest.name}/{path.name}": path.read_bytes() for path in sorted(newest.glob("*.safetensors"))}


def assert_same(run: Path, undisturbed: Path) -> None:
    """Parameters, moments, generators and probe byte for byte; losses and all other metrics number for number."""
    assert metrics(run) == metrics(undisturbed)
    assert shards(run) == shards(undisturbed)
    assert shards(run)
    assert json.loads((run / "summary.json").read_text())["heldout_loss"]
