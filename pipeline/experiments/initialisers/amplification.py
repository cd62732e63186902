"""How much a small change of all weights changes the output, by depth: Var[F(x, W) - F(x, W*)]/ε² of real encoders.

Every matrix of the layers becomes W* = W + ε·rms(W)·N(0, 1). All encoders here end in a LayerNorm, so F has variance 1.

Shapes: B batch, L sequence, D width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config.load import changed, load_recipe
from pipeline.config.schema import RunConfig
from pipeline.data.batch import Batch
from pipeline.data.random_batch import random_batch
from pipeline.init.admin import omegas
from pipeline.init.measured import apply
from pipeline.init.normal import init_weights
from pipeline.model.build import build_model
from pipeline.model.encoder import Layer
from pipeline.model.normalise import layer_norm
from pipeline.model.pretraining import PretrainingModel

EPSILON = 0.05
VOCAB_SIZE, SEQUENCES, LENGTH = 256, 8, 32
WIRINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "Post-LN": ("tiny-bert", {}),
    "Admin": ("tiny-bert", {"model.init": "admin"}),
    "Pre-LN": ("tiny-bert", {}),  # with other joins
    "SIBERT-A": ("base-paper", {}),
    "SIBERT-D": ("tiny", {"model.final_norm": True, "model.init": "normal"}),
}


def amplification(wiring: str, layers: int, width: int, gain: float, seed: int) -> float:
    """Of an encoder whose matrices start with a standard deviation of gain/sqrt(width): 1 is Xavier's of a square matrix, 0.55
    what BERT's 0.02 is at width 768."""
    recipe, settings = WIRINGS[wiring]
    config = _config(recipe, {**settings, "model.init_std": gain / width**0.5}, layers, width)
    generator = torch.Generator().manual_seed(seed)
    model = build_model(config, VOCAB_SIZE)
    init_weights(model, config.model, seed)
    batch = random_batch(generator, SEQUENCES, LENGTH, 4, VOCAB_SIZE, nsp=False)
    if config.model.init == "admin":
        apply(model, {"multipliers": omegas(model, batch)})
    if wiring == "Pre-LN":
        for layer in model.encoder.layers:
            assert isinstance(layer, Layer)
            layer.join = _join_before
    with torch.no_grad():
        before_BLD = _output(model, batch)
        for name, parameter in model.encoder.named_parameters():
            if name.startswith("layers.") and parameter.ndim > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise, alpha=EPSILON * float(parameter.square().mean().sqrt()))
        after_BLD = _output(model, batch)
    return float((after_BLD - before_BLD).var(correction=0)) / EPSILON**2


def _config(recipe: str, settings: dict[str, Any], layers: int, width: int) -> RunConfig:
    shape = {"layers": layers, "width": width, "heads": 2, "ffn_width": 4 * width, "max_seq_len": LENGTH}
    base = changed(load_recipe(recipe, [f"data.seq_len={LENGTH}"]), settings)
    return changed(base, {f"model.{key}": value for key, value in shape.items()})


def _join_before(x_BLD: Tensor, branch: Callable[[Tensor], Tensor], norm: nn.Module, drop: Any, shortcut: Any) -> Tensor:
    """Pre-LN: x + branch(LN(x))."""
    return x_BLD + branch(norm(x_BLD))


def _output(model: PretrainingModel, batch: Batch) -> Tensor:
    """Normalised once more: Pre-LN ends without, for the others it is the identity."""
    return layer_norm(model.encoder(batch.input_ids, batch.token_type_ids, None))
