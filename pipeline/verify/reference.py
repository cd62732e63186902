"""The recipe on paper, in float64, in one process, without an engine: what `certify` and the tests hold the product against.

Written from the paper's equations and nothing else of this package's optimiser; slow and plain on purpose.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pipeline.config.schema import HeadOptimConfig, OptimConfig

Norms = dict[str, tuple[float, float, float]]  # of each clip set: ||x||, ||g||, threshold


class Reference:
    """Parameters, and LAMB's or AdamW's moments, in float64. `clip_sets` names the tensors that SGD trains, by the norm they
    share; the others have moments."""

    def __init__(self, parameters: Mapping[str, Tensor], clip_sets: Mapping[str, Sequence[str]]) -> None:
        self.x = {name: p.detach().double().cpu().clone() for name, p in parameters.items()}
        self.clip_sets = clip_sets
        in_sets = {name for names in clip_sets.values() for name in names}
        self.moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in self.x.items() if n not in in_sets}
        self.updates = 0

    def step(self, g: Mapping[str, Tensor], lr: float, optim: OptimConfig, head_lr: float, head: HeadOptimConfig) -> Norms:
        """One update with the gradient `g` at the learning rates of this step; returns what decided it."""
        if optim.rule == "adamw":
            return self._adamw(g, lr, optim)
        norms = {}
        for clip_set, names in self.clip_sets.items():  # Algorithm 1
            x_norm = torch.cat([self.x[n].flatten() for n in names]).norm().item()
            g_norm = torch.cat([g[n].double().flatten() for n in names]).norm().item()
            threshold = (2 * optim.clip_c * optim.weight_decay / lr) ** 0.5 * x_norm
            norms[clip_set] = (x_norm, g_norm, threshold)
            for n in names:
                self.x[n] = (1 - lr * optim.weight_decay) * self.x[n] - lr * min(threshold / g_norm, 1.0) * g[n].double()
        self.updates += 1
        (beta1, beta2), t = head.betas, self.updates
        for n, (m, v) in self.moments.items():  # LAMB, Algorithm 2 of You et al. 2020
            w, gradient, decayed = self.x[n], g[n].double(), self.x[n].ndim > 1
            m.copy_(beta1 * m + (1 - beta1) * gradient)
            v.copy_(beta2 * v + (1 - beta2) * gradient**2)
            r = m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + head.eps) + (head.weight_decay * w if decayed else 0)
            self.x[n] = w - head_lr * ((w.norm() / r.norm()).item() if decayed else 1.0) * r
        return norms

    def _adamw(self, g: Mapping[str, Tensor], lr: float, optim: OptimConfig) -> Norms:
        """Loshchilov & Hutter 2019, Algorithm 2, after clipping by the norm of everything."""
        x_norm, g_norm = (torch.cat([t.flatten().double() for t in ts.values()]).norm().item() for ts in (self.x, g))
        (beta1, beta2), coefficient = optim.betas, min(optim.max_grad_norm / g_norm, 1.0)
        self.updates += 1
        for n, (m, v) in self.moments.items():
            gradient = coefficient * g[n].double()
            m.copy_(beta1 * m + (1 - beta1) * gradient)
            v.copy_(beta2 * v + (1 - beta2) * gradient**2)
            m_hat, v_hat = m / (1 - beta1**self.updates), v / (1 - beta2**self.updates)
            decay = optim.weight_decay if self.x[n].ndim > 1 else 0.0
            self.x[n] = (1 - lr * decay) * self.x[n] - lr * m_hat / (v_hat.sqrt() + optim.eps)
        return {"everything": (x_norm, g_norm, optim.max_grad_norm)}
