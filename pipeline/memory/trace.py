"""Forward and backward pass of one micro batch on fake tensors: shapes, types and lifetimes are real, storage there is none.

Every operator of the model runs through torch's own shape functions and autograd, so that what is kept for the backward pass,
and for how long, is what a real run keeps. What an operator allocates and releases within itself is not seen.
"""

import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.data.masking import predictions_per_sequence
from pipeline.memory.system import ACTIVATIONS, GRADIENTS, LOGITS, PARAMETERS, WORKSPACE, Kinds, System, random_micro_batch
from pipeline.model.build import skeleton

GradientPolicy = Callable[[str, nn.Parameter, "Meter"], None]  # what the engine does with a gradient that has just been made


@dataclass(frozen=True)
class Passes:
    """Bytes by kind beside parameters and model states: at the peak and at the end of each pass."""

    forward_peak: Kinds
    forward_end: Kinds
    backward_peak: Kinds
    backward_end: Kinds


class Meter(TorchDispatchMode):
    """Counts the storages that live and are not the model's, by kind."""

    def __init__(self, logits_shape: tuple[int, int]) -> None:
        super().__init__()
        self.logits_shape, self.forward = logits_shape, True
        self.live: Counter[str] = Counter()
        self.kinds: dict[int, str] = {}  # of the storages that live
        self.peak: Kinds = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for out in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(out, Tensor):
                self._see(out)
        if func is torch.ops.aten.linalg_vector_norm.default and not torch.cuda.is_available():
            self._casts_first(args[0], result)
        return result

    def _casts_first(self, tensor: Tensor, result: Tensor) -> None:
        """On a CPU the operator makes a copy of all its input in the result's type; of the model's it is the largest that is
        not seen."""
        copy = tensor.numel() * result.element_size() * (tensor.dtype != result.dtype)
        self.add(WORKSPACE, copy)
        self.add(WORKSPACE, -copy)

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.kinds:
            return
        is_logits = tuple(tensor.shape) == self.logits_shape
        recomputed = torch.is_grad_enabled()  # layers that activation checkpointing runs again in the backward pass
        self.kinds[key] = LOGITS if is_logits else ACTIVATIONS if self.forward or recomputed else WORKSPACE
        self.add(self.kinds[key], storage.nbytes())
        weakref.finalize(storage, self._gone, key, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self.live[self.kinds.pop(key)] -= size

    def ignore(self, tensor: Tensor) -> None:
        """Count neither it nor its views."""
        self.kinds[tensor.untyped_storage()._cdata] = PARAMETERS

    def is_gradient(self, gradient: Tensor) -> None:
        """From now on it counts as one."""
        storage = gradient.untyped_storage()
        size = storage.nbytes()
        self.live[self.kinds[storage._cdata]] -= size
        self.kinds[storage._cdata] = GRADIENTS
        self.live[GRADIENTS] += size

    def add(self, kind: str, size: int) -> None:
        """So many bytes more (or less) of a kind."""
        self.live[kind] += size
        if sum(self.live.values()) > sum(self.peak.values()):
            self.peak = dict(self.live)

    def take_peak(self) -> Kinds:
        """The peak since the last call."""
        peak, self.peak = self.peak, dict(self.live)
        return peak


def trace(system: System, keep_gradient: GradientPolicy, gradients_before: bool) -> Passes:
    """The two passes of one micro batch of a rank; `gradients_before`: those of earlier micro batches are still there."""
    dtype = torch.bfloat16 if system.precision == "bf16" else torch.float32
    model = skeleton(system.config, system.vocab_size)
    predictions = predictions_per_sequence(system.config.data.seq_len, system.config.data.mask_fraction)
    meter = Meter((system.micro_sequences * predictions, system.vocab_size))
    with FakeTensorMode():
        _fill(model, dtype)
        for held in (*model.parameters(), *model.buffers()):
            meter.ignore(held)
        with meter:
            batch = random_micro_batch(system, torch.Generator())
            for name, parameter in model.named_parameters():
                if gradients_before:
                    parameter.grad = torch.empty_like(parameter)
                    meter.is_gradient(parameter.grad)
                parameter.register_post_accumulate_grad_hook(partial(_made, name, meter, keep_gradient))
            meter.take_peak()
            loss = model(batch).loss
            forward_peak, forward_end = meter.take_peak(), dict(meter.live)
            meter.forward = False
            loss.backward()
            backward_peak, backward_end = meter.take_peak(), dict(meter.live)
    return Passes(forward_peak, forward_end, backward_peak, backward_end)


def _made(name: str, meter: Meter, keep_gradient: GradientPolicy, parameter: Tensor) -> None:
    assert isinstance(parameter, nn.Parameter)
    assert parameter.grad is not None
    meter.is_gradient(parameter.grad)
    keep_gradient(name, parameter, meter)


def _fill(model: nn.Module, dtype: torch.dtype) -> None:
    """Fake tensors in the place of the skeleton's; shared ones stay shared."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = made.setdefault(id(parameter), nn.Parameter(torch.empty(parameter.shape, dtype=dtype)))
                module._parameters[name] = fake
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
