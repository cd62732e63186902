"""What the run remembers of its norms: clipped and skipped steps, and the equilibrium they predict."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.optim.decision import Decision
from pipeline.optim.relative_clip import equilibrium_norm

SIGMA_WINDOW_STEPS = 100  # horizon of the running mean of σ²


@dataclass
class NormStatistics:
    """Updated once a step, the same on every rank; saved in checkpoints and restored."""

    steps: int = 0
    clipped_steps: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    sigma_square: float = 0.0  # running mean of (||x||·||g||)², the squared gradient norm on the unit sphere

    def update(self, decision: Decision) -> None:
        """Count one step; σ follows what is clipped, the scale invariant parameters."""
        self.steps += 1
        if not decision.finite:
            self.skipped_steps += 1
            self.skipped_in_a_row += 1
            return
        self.skipped_in_a_row = 0
        self.clipped_steps += decision.clipped
        weight = 1 / min(self.steps - self.skipped_steps, SIGMA_WINDOW_STEPS)
        self.sigma_square += weight * ((decision.x_norm * decision.g_norm) ** 2 - self.sigma_square)

    def equilibrium(self, lr: float, weight_decay: float) -> float | None:
        """The norm that σ, lr and weight decay settle at; None where there is none (λ = 0)."""
        if weight_decay == 0:
            return None
        return equilibrium_norm(math.sqrt(self.sigma_square), lr, weight_decay)

    @property
    def clipped_fraction(self) -> float:
        """Clipped over all steps so far."""
        return self.clipped_steps / max(1, self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Plain values for the checkpoint."""
        return asdict(self)
