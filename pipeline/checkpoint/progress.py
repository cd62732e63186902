"""Where a run stands: what a checkpoint says beside the tensors, and what a resume takes from it.

Only what cannot be recomputed is restored. The learning rate and the sample cursor follow from the step, the clip threshold
from the current norms; the first two are stored to be compared, the threshold is not stored at all.
"""

import datetime
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.checkpoint.reader import Checkpoint
from pipeline.optim.statistics import NormStatistics


@dataclass
class Progress:
    """A run's place, the same on every rank."""

    samples: int  # consumed so far: the next global batch begins with this sample counter
    updates: int  # applied, that is without the skipped steps: LAMB's and AdamW's bias correction
    attempt: int  # starts so far
    lr: float  # of the next step
    metrics_bytes: int  # of metrics.jsonl, on rank 0
    window_time_s: float
    window_steps: int
    statistics: dict[str, Any]

    def norm_statistics(self) -> NormStatistics:
        """The clip statistics."""
        return NormStatistics(**self.statistics)


def manifest_of(
    progress: Progress, made_from: dict[str, Any], shapes: dict[str, list[int]], **mechanics: Any
) -> dict[str, Any]:
    """A manifest but for its format, step, files and probe. `mechanics`: world size and the like."""
    return {
        "saved_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **mechanics,
        "progress": asdict(progress),
        "made_from": made_from,
        "parameters": shapes,
    }


def restored(found: Checkpoint, samples: int, lr: float) -> Progress:
    """The progress of a checkpoint; ValueError if the samples or the learning rate that follow from its step here are not those
    that it stored."""
    stored = {key: value for key, value in found.manifest["progress"].items() if key != "loss_scale"}  # older ones have: 1.0
    progress = Progress(**stored)
    for name, here in (("samples", samples), ("lr", lr)):
        there = getattr(progress, name)
        if there != here:
            raise ValueError(
                f"{found.directory}: {name} after step {found.step} was {there!r} when it was saved and is {here!r} now: "
                "another version of this program would train another run; use the one in its manifest"
            )
    return progress
