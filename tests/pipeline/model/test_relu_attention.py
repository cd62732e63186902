"""Attention that keeps no scores, beside its definition in float64 through torch's own gradients."""

import pytest
import torch
from torch import Tensor

from pipeline.model import relu_attention
from pipeline.model.attention import _inverse_power_of_two, scale_invariant_attention


def by_definition(q: Tensor, k: Tensor, v: Tensor, mask_BL: Tensor | None, power: int) -> Tensor:
    weights = torch.relu(q @ k.transpose(-1, -2)) ** power
    if mask_BL is not None:
        weights = weights * mask_BL[:, None, None, :]
    total = weights.sum(dim=-1, keepdim=True)
    return weights @ v / torch.where(total > 0, total, 1.0)


def inputs(length: int, kind: torch.dtype, seed: int = 0) -> list[Tensor]:
    """q, k, v and the gradient of what is made of them; as heads lie in a product of all: not contiguous. Every fifth query
    has no positive score, being the opposite of what all keys have in common."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v, g = torch.randn(4, 3, length, 2, 16, dtype=torch.float64, generator=generator).unbind(0)
    k[..., 0] = k[..., 0].abs() + 5
    q[:, ::5] = 0
    q[:, ::5, :, 0] = -1
    return [t.to(kind).transpose(1, 2).requires_grad_() for t in (q, k, v, g)]


def masks(length: int) -> Tensor:
    mask = torch.ones(3, length, dtype=torch.float64)
    mask[1, length // 2 :] = 0
    mask[2] = 0
    return mask


@pytest.mark.parametrize("power", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 7, 64])
@pytest.mark.parametrize("most", [2**22, 3 * 2 * 64 * 5], ids=["one block", "many blocks"])
@pytest.mark.parametrize("padded", [False, True])
def test_output_and_gradients_are_those_of_the_definition(
    monkeypatch: pytest.MonkeyPatch, power: int, length: int, most: int, padded: bool
) -> None:
    monkeypatch.setattr(relu_attention, "MOST_SCORES", most)
    q, k, v, g = inputs(length, torch.float64)
    mask = masks(length) if padded else None
    expected, found = by_definition(q, k, v, mask, power), scale_invariant_attention(q, k, v, mask, power)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)
    for one, other in zip(torch.autograd.grad(found, (q, k, v), g), torch.autograd.grad(expected, (q, k, v), g), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
    assert (found[:, :, ::5] == 0).all()  # empty rows


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_in_low_precision_it_is_no_worse_than_torch_s_own_operations(power: int, kind: torch.dtype) -> None:
    errors = {}
    exact = [t.detach().to(kind).double().requires_grad_() for t in inputs(64, torch.float64, seed=1)]
    truth = [t.double() for t in torch.autograd.grad(by_definition(*exact[:3], None, power), exact[:3], exact[3])]
    for name, attend in (("definition", by_definition), ("ours", scale_invariant_attention)):
        q, k, v, g = (t.detach().to(kind).requires_grad_() for t in exact)
        gradients = torch.autograd.grad(attend(q, k, v, None, power), (q, k, v), g)
        errors[name] = [((a.double() - b).norm() / b.norm()).item() for a, b in zip(gradients, truth, strict=True)]
    assert all(ours <= 1.3 * theirs for ours, theirs in zip(errors["ours"], errors["definition"], strict=True)), errors


def test_nothing_of_the_size_of_the_scores_is_kept() -> None:
    q, k, v, _ = inputs(64, torch.float32)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scale_invariant_attention(q, k, v, masks(64), 2)
    assert max(kept) <= q.numel()
    assert sum(kept) <= 5 * q.numel()


def test_twice_the_same_bits() -> None:
    def once() -> list[Tensor]:
        q, k, v, g = inputs(64, torch.float32)
        return list(torch.autograd.grad(scale_invariant_attention(q, k, v, None, 2), (q, k, v), g))

    assert all(torch.equal(a, b) for a, b in zip(once(), once(), strict=True))


def test_lengths_are_divided_by_exact_powers_of_two() -> None:
    lengths = [0.0, 2.0**-100, 0.3, 0.5, 1.0, 1.5, 3e38]
    found = _inverse_power_of_two(torch.tensor(lengths, dtype=torch.float64)).tolist()
    assert found == [1.0, 2.0**99, 2.0, 1.0, 0.5, 0.5, 2.0**-126]
    assert _inverse_power_of_two(torch.tensor([[3.0]], dtype=torch.bfloat16)).tolist() == [[0.25]]
