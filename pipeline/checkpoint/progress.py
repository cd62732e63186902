"""Where a run stands: what a checkpoint says beside the tensors, and what a resume takes from it.

Only what cannot be recomputed is restored. The learning rate and the sample cursor follow from the step, the clip threshold
from the norms of the moment; the first two are stored to be compared, the threshold is not stored at all.
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
    loss_scale: float
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


def restored(found: Checkpoint, samples: int, lr: float, loss_scale: float) -> Progress:
    """The progress of a checkpoint; ValueError if what is recomputed here (all but the checkpoint) is not what was stored."""
    progress = Progress(**found.manifest["progress"])
    for name, here in (("samples", samples), ("lr", lr), ("loss_scale", loss_scale)):
        stored = getattr(progress, name)
        if stored != here:
            raise ValueError(
                f"{found.directory}: {name} after step {found.step} was {stored!r} when it was saved and is {here!r} now: "
                "another version of this program would train another run; use the one in its manifest"
            )
    return progress
