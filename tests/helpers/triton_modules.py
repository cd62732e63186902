"""Triton decides as it is imported whether kernels are interpreted. A test that wants it the other way imports it anew."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

import pipeline.model
from pipeline.model import fused_attention

OURS = ("triton_kernels", "triton_attention")


@contextlib.contextmanager
def fresh_triton(interpret: bool) -> Iterator[ModuleType]:
    """`triton_attention`, imported with kernels that are interpreted or compiled; all as it was afterwards."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed (tests/requirements.txt)")
    before = _take_out()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", str(int(interpret)))
        fused_attention.problem.cache_clear()
        try:
            yield importlib.import_module("pipeline.model.triton_attention")
        finally:
            _take_out()
            sys.modules.update(before)
            for name in OURS:
                if f"pipeline.model.{name}" in before:
                    setattr(pipeline.model, name, before[f"pipeline.model.{name}"])
            fused_attention.problem.cache_clear()


def _take_out() -> dict[str, ModuleType]:
    """The modules of triton and ours that import it, which nobody finds after this; its library of C++ types stays."""
    ours = {f"pipeline.model.{name}" for name in OURS}
    found = {n: m for n, m in sys.modules.items() if n in ours or (n.split(".")[0] == "triton" and "_C" not in n)}
    for name in found:
        del sys.modules[name]
    for name in OURS:
        vars(pipeline.model).pop(name, None)
    return found
