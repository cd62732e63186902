"""One process without DeepSpeed, behind the same three calls: for tests, and for models that need no engine."""

from typing import Any

from torch import Tensor, nn

from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.partitions import replicated


class LocalEngine:
    """A model and its optimiser in this process; each `accumulation_steps`-th step() updates from the mean gradient."""

    def __init__(self, model: nn.Module, optimizer: PretrainingOptimizer, accumulation_steps: int = 1) -> None:
        self.module, self.optimizer, self.accumulation_steps = model, optimizer, accumulation_steps
        self._micro_steps = 0
        optimizer.attach(replicated(list(model.named_parameters()), optimizer.all_groups))

    def __call__(self, batch: Any) -> Any:
        """The forward pass of a micro batch."""
        return self.module(batch)

    def backward(self, loss: Tensor) -> None:
        """Add the micro batch's share of the gradient."""
        (loss / self.accumulation_steps).backward()

    def step(self) -> None:
        """Update after the last micro batch; nothing before."""
        self._micro_steps += 1
        if self._micro_steps % self.accumulation_steps:
            return
        self.optimizer.prepare()
        self.optimizer.step()
        self.optimizer.finish()
        self.optimizer.zero_grad()
