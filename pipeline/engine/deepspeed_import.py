"""The one import of DeepSpeed, silenced. The other files of this folder take it from here."""

import contextlib
import importlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from unittest.mock import patch

import torch

__all__ = ["DeepSpeedZeroOptimizer", "deepspeed", "deepspeed_logger", "deepspeed_torch_backend", "quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it nothing reaches standard output and no warning is shown: while DeepSpeed is imported and sets itself up it
    reports what the user cannot act on. Errors are raised as ever."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # otherwise DeepSpeed looks for CUDA's compiler
logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)

with quiet():
    import deepspeed
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
    from deepspeed.utils import logger as deepspeed_logger

    # Each engine imports Muon, to ask whether an optimiser is one, and Muon a compiler for kernels that nobody calls here:
    # a quarter of what a process does before its first step. Now it is there, and its kernels are plain functions.
    with patch("deepspeed.runtime.compiler.compile", lambda: lambda kernel: kernel), contextlib.suppress(ImportError):
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")

# A torch optimiser imports torch's compiler (two seconds) in order not to be compiled. Nothing here would compile one.
for method in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
    plain = getattr(getattr(torch.optim.Optimizer, method), "__wrapped__", None)
    if plain is not None:
        plain.__dynamo_disable = plain

# `import deepspeed.comm.torch as …` would give torch itself: the package binds that name over its own module's.
deepspeed_torch_backend = importlib.import_module("deepspeed.comm.torch")
