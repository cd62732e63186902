"""The masked tokens' loss by blocks of the vocabulary, beside the one that holds all logits."""

import pytest
import torch
from torch import Tensor

from pipeline.model import token_loss
from pipeline.model.normalise import row_norms

SEED = 20261128
N, V, D = 37, 211, 16


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_loss, "MOST_LOGITS", N * 50)  # five blocks, the last of 11 rows


def case(dtype: torch.dtype, row_normalised: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """h, weight, bias and labels: the first, the last and the ends of blocks among them."""
    generator = torch.Generator().manual_seed(SEED)
    h_ND, weight_VD, bias_V = (torch.randn(*size, generator=generator).double() for size in ((N, D), (V, D), (V,)))
    labels_N = torch.randint(V, (N,), generator=generator)
    labels_N[:6] = torch.tensor([0, 49, 50, 199, 200, V - 1])
    return h_ND.to(dtype), weight_VD.to(dtype), bias_V.float() if row_normalised else bias_V.to(dtype), labels_N


def loss_and_gradients(dtype: torch.dtype, row_normalised: bool) -> list[Tensor]:
    h_ND, weight_VD, bias_V, labels_N = case(dtype, row_normalised)
    leaves = [h_ND.requires_grad_(), weight_VD.requires_grad_(), bias_V.requires_grad_(not row_normalised)]
    scale_V = 0.7 / row_norms(weight_VD) if row_normalised else None
    loss_N = token_loss.token_loss(h_ND, weight_VD, scale_V, bias_V, labels_N)
    weights_N = torch.arange(N) % 3  # slots without a prediction weigh nothing
    (loss_N * weights_N).mean().backward()
    return [loss_N.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("row_normalised", [True, False])
def test_blocks_give_the_loss_and_the_gradients_of_the_whole(monkeypatch: pytest.MonkeyPatch, row_normalised: bool) -> None:
    whole = loss_and_gradients(torch.float64, row_normalised)
    monkeypatch.setattr(token_loss, "MOST_LOGITS", N * 50)
    blocks = loss_and_gradients(torch.float64, row_normalised)
    assert len(blocks) == (3 if row_normalised else 4)
    for mine, other in zip(blocks, whole, strict=True):
        assert torch.allclose(mine, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("row_normalised", [True, False])
def test_in_bf16_blocks_are_about_as_near_to_float64_as_the_whole(
    monkeypatch: pytest.MonkeyPatch, row_normalised: bool
) -> None:
    exact = loss_and_gradients(torch.float64, row_normalised)
    whole = loss_and_gradients(torch.bfloat16, row_normalised)
    monkeypatch.setattr(token_loss, "MOST_LOGITS", N * 50)
    for mine, other, right in zip(loss_and_gradients(torch.bfloat16, row_normalised), whole, exact, strict=True):
        assert mine.dtype == other.dtype
        # Each block's share of h's gradient is rounded to bf16 before they are summed.
        assert (mine - right).norm() <= 1.5 * (other - right).norm()


@pytest.mark.usefixtures("small_blocks")
def test_gradients_are_those_of_differences() -> None:
    h_ND, weight_VD, bias_V, labels_N = case(torch.float64, row_normalised=False)
    scale_V = 0.7 / row_norms(weight_VD)
    leaves = [tensor.requires_grad_() for tensor in (h_ND[:5].clone(), weight_VD, scale_V.detach(), bias_V)]
    some = labels_N[:5]
    few = [1, 49, 50, 200]  # a full check of 211 rows takes seconds; these are of three blocks

    def loss(h: Tensor, rows: Tensor, scales: Tensor, biases: Tensor) -> Tensor:
        parts = (rows, scales, biases)
        whole = [leaf.detach().clone() for leaf in leaves[1:]]
        for full, part in zip(whole, parts, strict=True):
            full[few] = part
        return token_loss._LossInBlocks.apply(h, *whole, some)

    assert torch.autograd.gradcheck(loss, (leaves[0], *(leaf.detach()[few].requires_grad_() for leaf in leaves[1:])))


@pytest.mark.usefixtures("small_blocks")
def test_scale_invariance_is_kept_bit_for_bit() -> None:
    h_ND, weight_VD, bias_V, labels_N = case(torch.float32, row_normalised=True)
    losses = [
        token_loss.token_loss(h_ND, c * weight_VD, 0.7 / row_norms(c * weight_VD), bias_V, labels_N) for c in (1.0, 2.0**40)
    ]
    assert torch.equal(*losses)


@pytest.mark.usefixtures("small_blocks")
def test_no_tensor_of_all_logits_is_made() -> None:
    """Neither forward nor backward: the largest of (N, V) is a block."""
    largest: list[int] = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            made = function(*args, **(kwargs or {}))
            largest.extend(t.numel() for t in (made if isinstance(made, tuple) else (made,)) if isinstance(t, Tensor))
            return made

    with Sizes():
        loss_and_gradients(torch.float32, row_normalised=True)
    assert max(largest) == max(V * D, N * 50)
