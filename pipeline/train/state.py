"""Where a training stands between two steps."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.optim.statistics import NormStatistics


@dataclass
class LossWindow:
    """This rank's sums since the last record: [loss, predictions] in float64, the seconds and the steps. A checkpoint between
    two records holds them, so that a resumed run writes the records that an undisturbed one writes."""

    loss: Tensor
    time_s: float = 0.0
    steps: int = 0

    @classmethod
    def empty(cls, device: torch.device) -> "LossWindow":
        """Nothing summed yet."""
        return cls(torch.zeros(2, dtype=torch.float64, device=device))

    def add(self, token_loss_N: Tensor, weights: Tensor) -> None:
        """One micro batch: its weighted losses, and the weights of its predictions."""
        self.loss += torch.stack([token_loss_N.sum(), weights.sum()]).double()

    def end_step(self, time_s: float) -> None:
        """One step is complete."""
        self.time_s += time_s
        self.steps += 1


@dataclass
class TrainState:
    """What a checkpoint holds beside weights and moments. `step` counts finished updates; `statistics` and `step` are the same
    on every rank, the window is this rank's own."""

    window: LossWindow
    step: int = 0
    statistics: NormStatistics = field(default_factory=NormStatistics)

    @classmethod
    def new(cls, device: torch.device) -> "TrainState":
        """Before the first step."""
        return cls(LossWindow.empty(device))
