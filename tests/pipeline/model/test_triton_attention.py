"""The Triton kernels, run by Triton's interpreter, beside the definition in float64 and the path that every machine has."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.config.load import as_dict, load_recipe
from pipeline.data.random_batch import random_batch
from pipeline.model import fused_attention
from pipeline.model.attention import attention_line, scale_invariant_attention
from pipeline.model.build import build_model
from pipeline.model.degrees import degrees
from pipeline.model.fused_attention import FusedAttention, attend, attend_backward
from pipeline.model.invariance import quick_check
from pipeline.run.directory import check_run, open_run
from tests.helpers.running import long
from tests.helpers.triton_modules import fresh_triton
from tests.pipeline.model.test_relu_attention import by_definition

CPU = torch.device("cpu")
FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16


@pytest.fixture(scope="module", autouse=True)
def interpreter() -> Iterator[None]:
    with fresh_triton(interpret=True):
        yield


def inputs(length: int, width: int, kind: torch.dtype, with_empty_rows: bool = False) -> list[Tensor]:
    """q, k, v and the gradient of what is made of them, two heads, as slices of one product: not contiguous. If asked, every
    fifth query has no positive score, being the opposite of what all keys have in common."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(1, length, 4, 2, width, dtype=torch.float64, generator=generator)
    if with_empty_rows:
        whole[:, :, 1, :, 0] = whole[:, :, 1, :, 0].abs() + 5
        whole[:, ::5, 0] = 0
        whole[:, ::5, 0, :, 0] = -1
    return [whole.to(kind)[:, :, at].transpose(1, 2) for at in range(4)]


def passes(attention: Any, q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> list[Tensor]:
    """out, dq, dk, dv."""
    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    out = attention(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def fused(power: int) -> Any:
    return lambda q, k, v: FusedAttention.apply(q, k, v, power)


def error(found: Tensor, truth: Tensor) -> float:
    return ((found.double() - truth).norm() / truth.norm()).item()


# The interpreter cuts a number off to bf16 where a GPU rounds it: twice the error.
@pytest.mark.parametrize(
    ("kind", "power", "length", "width", "worse"),
    [
        (FP32, 1, 19, 16, 1.3),
        (FP32, 3, 19, 48, 1.3),
        (BF16, 2, 19, 16, 2.6),
        (FP16, 2, 19, 16, 1.3),
        *(
            pytest.param(kind, power, length, width, 2.6 if kind == BF16 else 1.3, marks=pytest.mark.long)
            for kind in (FP32, BF16, FP16)
            for power in (1, 2, 3)
            for length, width in ((16, 32), (37, 80), (64, 128))
        ),
    ],
)
def test_errors_are_no_larger_than_the_other_path_s(
    kind: torch.dtype, power: int, length: int, width: int, worse: float
) -> None:
    q, k, v, grad = inputs(length, width, kind)
    exact = partial(by_definition, mask_BL=None, power=power)
    truth = passes(exact, *(t.double() for t in (q, k, v, grad)))
    ours = passes(fused(power), q, k, v, grad)
    other = partial(scale_invariant_attention, mask_BL=None, power=power, kernel="blocked")
    other_kind = BF16 if kind == FP16 else kind  # fp16, in which the other path overflows, has three bits more
    theirs = passes(other, *(t.to(other_kind) for t in (q, k, v, grad)))
    worse /= 8 if kind == FP16 else 1
    limits = []
    for a, b in zip(theirs, passes(exact, *(t.to(other_kind).double() for t in (q, k, v, grad))), strict=True):
        if b.any():
            limits.append(worse * error(a, b))
    errors = [error(a, t) for a, t in zip(ours, truth, strict=True) if t.any()]
    assert all(e <= limit for e, limit in zip(errors, limits, strict=True)), (errors, limits)


def test_one_token_attends_to_itself_or_to_nothing() -> None:
    q, k, v, grad = inputs(1, 16, FP32)
    q = torch.where(torch.tensor([[[[True]], [[False]]]]), k, -k)  # of two heads
    out, dq, dk, dv = passes(fused(2), q, k, v, grad)
    for found, expected in ((out, v), (dv, grad)):
        assert torch.allclose(found[:, 0], expected[:, 0], rtol=1e-6)
        assert (found[:, 1] == 0).all()
    assert dq.abs().max() < 1e-6
    assert dk.abs().max() < 1e-6


@pytest.mark.parametrize("power", [1, *long(2, 3)])
def test_a_row_without_a_positive_score_gives_zeros_and_has_no_gradient(power: int) -> None:
    q, k, v, grad = inputs(19, 16, FP32, with_empty_rows=True)
    out, dq, dk, dv = passes(fused(power), q, k, v, grad)
    assert (out[:, :, ::5] == 0).all()
    assert (dq[:, :, ::5] == 0).all()
    grad = grad.clone()
    grad[:, :, ::5] = 7
    assert all(torch.equal(a, b) for a, b in zip(passes(fused(power), q, k, v, grad)[1:], (dq, dk, dv), strict=True))


@pytest.mark.parametrize(
    ("kind", "power"),
    [(FP32, 1), (BF16, 2), *(pytest.param(kind, power, marks=pytest.mark.long) for kind in (FP32, BF16) for power in (2, 3))],
)
def test_a_power_of_two_on_the_inputs_changes_no_bit_of_the_output(kind: torch.dtype, power: int) -> None:
    q, k, v, grad = inputs(16, 16, kind)
    here = passes(fused(power), q, k, v, grad)
    c_q, c_k, c_v = 2.0**13, 2.0**-7, 2.0**3
    there = passes(fused(power), q * c_q, k * c_k, v * c_v, grad)
    for one, other, scale in zip(here, there, (c_v, c_v / c_q, c_v / c_k, 1.0), strict=True):
        assert torch.equal(one * scale, other)


@pytest.mark.parametrize("c", [2.0**-40, 2.0**40])
def test_no_power_of_a_score_leaves_the_range_of_numbers(c: float) -> None:
    q, k, v, _ = inputs(16, 16, FP32)
    assert torch.equal(FusedAttention.apply(q * c, k * c, v, 3), FusedAttention.apply(q, k, v, 3))


def test_twice_the_same_bits_however_the_heads_lie() -> None:
    q, k, v, grad = inputs(19, 16, FP32)
    once, again = (passes(fused(2), *(t.contiguous() for t in (q, k, v, grad))) for _ in range(2))
    as_slices = passes(fused(2), q, k, v, grad)
    transposed = passes(fused(2), *(t.mT.contiguous().mT for t in (q, k, v, grad)))
    for others in (again, as_slices, transposed):
        assert all(torch.equal(a, b) for a, b in zip(once, others, strict=True))


def test_a_not_a_number_is_not_hidden() -> None:
    q, k, v, _ = inputs(16, 16, FP32)
    q[:, :, 3] = torch.nan
    out = FusedAttention.apply(q, k, v, 2)
    assert out[:, :, 3].isnan().all()
    assert out[:, :, 4].isfinite().all()


def test_shapes_are_known_without_running() -> None:
    q, k, v, grad = inputs(16, 16, FP32)
    real = attend(q, k, v, 2)
    real_gradients = attend_backward(grad, q, k, v, *real, 2)
    with FakeTensorMode() as mode:
        q, k, v, grad = (mode.from_tensor(t) for t in (q, k, v, grad))
        fake = attend(q, k, v, 2)
        fake_gradients = attend_backward(grad, q, k, v, *fake, 2)
    for one, other in zip((*real, *real_gradients), (*fake, *fake_gradients), strict=True):
        assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())


SMALL = ("model.layers=1", "model.width=32", "model.heads=2", "model.ffn_width=32", "model.max_seq_len=16", "data.seq_len=16")


def test_a_model_with_the_kernels_is_the_model_without() -> None:
    batch = random_batch(torch.Generator().manual_seed(0), 2, 16, 2, 97, nsp=False, shortest=8)
    found = {}
    for kernel in ("triton", "blocked"):
        torch.manual_seed(0)
        model = build_model(load_recipe("tiny", [*SMALL, f"train.attention_kernel={kernel}"]), 97)
        loss = model(batch).loss
        loss.backward()
        found[kernel] = [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]
    assert [row.problem for row in degrees(model) if row.problem] == []
    for one, other in zip(found["triton"], found["blocked"], strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    assert not torch.equal(found["triton"][1], found["blocked"][1])  # two ways of summing


@pytest.mark.long
def test_the_guardian_passes_a_model_with_the_kernels() -> None:
    model = build_model(load_recipe("tiny", [*SMALL, "train.attention_kernel=triton"]), 97)
    assert quick_check(model, random_batch(torch.Generator().manual_seed(0), 2, 16, 2, 97, nsp=False)) == []


# --- where they run -----------------------------------------------------------------------------------------------------------


def test_a_start_says_what_computes_the_attention_or_why_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = load_recipe("tiny", ["train.attention_kernel=triton"])
    assert attention_line(wanted, CPU, BF16) == "attention: Triton kernels"
    monkeypatch.delenv("TRITON_INTERPRET")
    fused_attention.problem.cache_clear()
    with pytest.raises(ValueError, match=r"^train.attention_kernel = 'triton' cannot be here: there is no GPU; choose 'auto'"):
        attention_line(wanted, CPU, BF16)
    assert attention_line(load_recipe("tiny"), CPU, BF16) is None
    blocked = load_recipe("tiny", ["train.attention_kernel=blocked"])
    assert attention_line(blocked, CPU, BF16) == "attention: blocks of torch's products (as set)"


@pytest.mark.parametrize(
    ("width", "power", "kind", "said"),
    [
        (24, 1, BF16, "width 24"),
        (144, 1, BF16, "width 144"),
        (64, 4, BF16, "model.attention_power is 4"),
        (64, 1, torch.float64, "float64"),
    ],
)
def test_what_the_kernels_cannot_is_named(width: int, power: int, kind: torch.dtype, said: str) -> None:
    assert said in str(fused_attention.problem(CPU, width, power, kind))


def test_a_gpu_on_which_they_fail_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    monkeypatch.delenv("TRITON_INTERPRET")
    fused_attention.problem.cache_clear()
    assert "they do not compile here (" in str(fused_attention.problem(torch.device("cuda"), 64, 2, BF16))


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_they_are_tried_within_an_evaluation_too(monkeypatch: pytest.MonkeyPatch, without_gradients: Any) -> None:
    monkeypatch.setattr("torch.cuda.synchronize", lambda device: None)
    with without_gradients():
        assert fused_attention._refusal(CPU, 16, 1, FP32) is None


def test_an_old_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 0))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "V100")
    monkeypatch.delenv("TRITON_INTERPRET")
    fused_attention.problem.cache_clear()
    assert fused_attention.problem(torch.device("cuda"), 64, 2, BF16) == "V100 is older than Ampere"


def test_bert_has_no_such_kernel() -> None:
    with pytest.raises(ValueError, match=r"train.attention_kernel = 'blocked' is of scale invariant attention"):
        load_recipe("tiny-bert", ["train.attention_kernel=blocked"])


def test_a_run_goes_on_with_another_kernel_and_one_from_before_there_was_any(tmp_path: Path) -> None:
    config = as_dict(load_recipe("tiny"))
    del config["train"]["attention_kernel"]
    wanted = {"recipe": "tiny", "data": "/d", "corpus_sha256": "c", "tokenizer_sha256": "t", "config": config}
    open_run(tmp_path / "run", wanted).close()
    other = {**wanted, "config": as_dict(load_recipe("tiny", ["train.attention_kernel=blocked"]))}
    check_run(tmp_path / "run", other)
