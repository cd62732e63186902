"""The model is scale invariant where it says so, and the baseline is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.config.schema import ModelConfig
from pipeline.data.batch import Batch
from pipeline.init.balanced import balance, share_a_direction
from pipeline.init.normal import init_weights, offset_scores, truncated_normal
from pipeline.model.attention import scale_invariant_attention, softmax_attention
from pipeline.model.build import log_unigram
from pipeline.model.invariant_groups import separately_invariant_groups
from pipeline.model.normalise import layer_norm, row_norms
from pipeline.model.pretraining import PretrainingModel
from tests.helpers.models import with_biases

VOCAB = 50
SCALES = (1e-4, 1e-2, 3.0, 1e2, 1e4)


def make(encoder: str, head: str, nsp: bool = False) -> PretrainingModel:
    config = ModelConfig(encoder=encoder, head=head, layers=3, width=16, heads=2, ffn_width=32, max_seq_len=12)  # type: ignore[arg-type]
    model = PretrainingModel(config, VOCAB, nsp, log_unigram(np.arange(VOCAB))).double()  # float64 throughout
    truncated_normal(model, 0.02, seed=1, quiet_token_types=False)
    return with_biases(model)


def batch(nsp: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, VOCAB, (4, 12), generator=generator)
    mask = torch.ones(4, 12)
    mask[1, 7:] = 0
    mask[2, :] = 0  # a fully padded row
    positions = torch.randint(0, 7, (4, 3), generator=generator)
    labels, nsp_labels = ids.gather(1, positions), torch.tensor([0, 1, 0, 1])
    return Batch(ids, torch.zeros_like(ids), positions, labels, torch.ones(4, 3), mask, nsp_labels if nsp else None)


def scale(model: PretrainingModel, c: float) -> None:
    with torch.no_grad():
        invariant = model.scale_invariant_names()
        for name, parameter in model.named_parameters():
            if name in invariant:
                parameter.mul_(c)


CASES = [(e, h, nsp) for e in ("sibert-a", "sibert-d") for h in ("paper", "invariant") for nsp in (False, True)]


@pytest.mark.parametrize(("encoder", "head", "nsp"), CASES)
def test_loss_is_scale_invariant_and_its_gradient_orthogonal_and_homogeneous(encoder: str, head: str, nsp: bool) -> None:
    model = make(encoder, head, nsp)
    invariant = model.scale_invariant_names()
    loss = model(batch(nsp)).loss
    loss.backward()
    named = {n: p for n, p in model.named_parameters() if n in invariant}
    x, g = (
        torch.cat([t.detach().flatten().clone() for t in ts]) for ts in zip(*((p, p.grad) for p in named.values()), strict=True)
    )
    assert abs(x @ g) <= 1e-12 * x.norm() * g.norm()
    for c in SCALES:
        scaled = make(encoder, head, nsp)
        scale(scaled, c)
        scaled_loss = scaled(batch(nsp)).loss
        scaled_loss.backward()
        assert abs(scaled_loss - loss) <= 1e-12 * loss
        scaled_g = torch.cat([p.grad.flatten() for n, p in scaled.named_parameters() if n in invariant])
        assert (scaled_g * c - g).norm() <= 1e-10 * g.norm()


def test_every_parameter_of_the_invariant_model_is_scale_invariant_and_only_the_encoder_otherwise() -> None:
    model = make("sibert-d", "invariant", nsp=True)
    assert model.scale_invariant_names() == {n for n, _ in model.named_parameters()}
    paper = make("sibert-a", "paper")
    assert paper.scale_invariant_names() == {n for n, _ in paper.named_parameters() if n.startswith("encoder.")}
    assert len(paper.scale_invariant_names()) > 10
    assert make("bert", "tied").scale_invariant_names() == set()


def test_the_control_bert_is_not_scale_invariant() -> None:
    model = make("bert", "tied")
    loss = model(batch()).loss
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.mul_(3.0)
    assert abs(model(batch()).loss - loss) > 1e-3 * loss


def test_each_group_of_wiring_d_is_invariant_by_itself() -> None:
    model = make("sibert-d", "invariant", nsp=True)
    groups = separately_invariant_groups(model)
    assert sum(len(g) for g in groups) == len(list(model.parameters()))
    loss = model(batch(True)).loss
    for tensors in groups:
        with torch.no_grad():
            for tensor in tensors:
                tensor.mul_(7.0)
        assert abs(model(batch(True)).loss - loss) <= 1e-12 * loss


def test_balanced_start_sets_each_group_to_its_own_equilibrium() -> None:
    model, lr, weight_decay = make("sibert-d", "invariant"), 0.3, 0.02
    groups = separately_invariant_groups(model)
    loss = model(batch()).loss.item()
    balance(model, lambda _: model(batch()).loss.backward(), 1, lr, weight_decay)
    assert abs(model(batch()).loss.item() - loss) <= 1e-12 * loss
    model(batch()).loss.backward()
    for tensors in groups:
        x = torch.cat([t.flatten() for t in tensors]).norm()
        g = torch.cat([t.grad.flatten() for t in tensors if t.grad is not None]).norm()
        # van Laarhoven's fixed point, written as the paper does: ||g|| = sqrt(λ(2 - ηλ)/η)·||x||
        assert (g / x).item() == pytest.approx((weight_decay * (2 - lr * weight_decay) / lr) ** 0.5, rel=1e-9)


def test_empty_attention_rows_give_zeros_and_zero_gradients() -> None:
    q = torch.full((1, 1, 3, 4), -1.0, requires_grad=True)
    k = torch.ones(1, 1, 3, 4, requires_grad=True)
    v = torch.randn(1, 1, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = scale_invariant_attention(q, k, v, None)
    (layer_norm(out) * torch.arange(4)).sum().backward()
    assert (out == 0).all()
    assert all((t.grad == 0).all() for t in (q, k, v))


def test_attention_is_the_definition_and_padding_does_not_reach_it() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 5, 4, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    out = scale_invariant_attention(q, k, v, mask)
    for b, h, i in np.ndindex(2, 2, 5):
        weights = [max(0.0, float(q[b, h, i] @ k[b, h, j])) * float(mask[b, j]) for j in range(5)]
        total = sum(weights) or 1.0
        expected = sum((w / total * v[b, h, j] for j, w in enumerate(weights)), torch.zeros(4, dtype=torch.float64))
        assert torch.allclose(out[b, h, i], expected, rtol=1e-12, atol=1e-14)
    for attend in (scale_invariant_attention, softmax_attention):
        changed = attend(q, k, torch.where(mask[:, None, :, None] == 0, 1e6, v), mask)
        assert torch.allclose(changed, attend(q, k, v, mask), rtol=1e-9)


def test_layer_norm_and_its_gradient_are_torch_s_where_no_row_is_constant() -> None:
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    weights = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (ours,) = torch.autograd.grad((layer_norm(x) * weights).sum(), x)
    (theirs,) = torch.autograd.grad((torch.nn.functional.layer_norm(x, (8,), eps=0.0) * weights).sum(), x)
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-14)
    assert torch.autograd.gradcheck(layer_norm, (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normalisations_have_no_absolute_constant_and_survive_zeros(dtype: torch.dtype) -> None:
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    for c in (1e-12, 1e12):
        assert torch.allclose(layer_norm(c * x), layer_norm(x), rtol=10 * torch.finfo(dtype).eps, atol=1e-6)
    zero = torch.zeros(2, 8, dtype=dtype, requires_grad=True)
    (layer_norm(zero) * torch.arange(8)).sum().backward()  # an uneven gradient: of an even one nothing would be left anyway
    assert zero.grad is not None
    assert (zero.grad == 0).all()
    w = torch.zeros(2, 8, dtype=dtype, requires_grad=True)
    (w / row_norms(w)[:, None]).sum().backward()
    assert w.grad is not None
    assert torch.isfinite(w.grad).all()


def test_invariant_head_logits_are_bounded_cosines_plus_the_unigram_bias() -> None:
    model = make("sibert-d", "invariant")
    h = layer_norm(torch.randn(5, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    logits = model.mlm_head(h, model.encoder.embedding.token.weight)
    w = model.mlm_head.decoder.weight
    bias = model.mlm_head.bias_bits.view(torch.float32)
    expected = h @ (w / w.norm(dim=1, keepdim=True)).t() + bias
    assert torch.allclose(logits, expected, rtol=1e-12)
    assert (logits - bias).abs().max() <= 4.0 + 1e-9  # τ·sqrt(D)


def test_loss_counts_weights_and_needs_nsp_labels() -> None:
    model = make("sibert-a", "paper")
    half = batch().weights.clone()
    half[:2] = 0
    full, part = model(batch()), model(replace(batch(), weights=half))
    assert part.loss.item() == pytest.approx(full.token_loss_N[6:].sum().item() / 12)
    with pytest.raises(ValueError, match="mlm\\+nsp"):
        make("sibert-a", "paper", nsp=True)(batch(nsp=False))


def test_offset_scores_leave_no_attention_row_nearly_empty() -> None:
    """The share of the scores' mass that survives the ReLU, over the rows of the first layer: halved at best without."""
    config = ModelConfig(encoder="sibert-d", head="invariant", layers=1, width=64, heads=4, ffn_width=64, max_seq_len=32)
    smallest = {}
    for offset in (0.0, 1.0):
        model = PretrainingModel(config, VOCAB, nsp=False)
        truncated_normal(model, 0.02, seed=0, quiet_token_types=True)
        offset_scores(model, offset, 0.02)
        attention = model.encoder.layers[0].attention
        ids = torch.randint(5, VOCAB, (4, 32), generator=torch.Generator().manual_seed(1))
        h = layer_norm(layer_norm(model.encoder.embedding(ids, torch.zeros_like(ids))))
        q, k = (f(h).unflatten(-1, (4, -1)).transpose(1, 2) for f in (attention.query, attention.key))
        scores = q @ k.transpose(-1, -2)
        smallest[offset] = (scores.relu().sum(-1) / scores.abs().sum(-1)).min().item()
    assert smallest[0.0] < 0.5
    assert smallest[1.0] > 0.9


def test_a_shared_direction_takes_the_noise_out_of_the_invariant_head_s_logits() -> None:
    config = ModelConfig(encoder="sibert-d", head="invariant", layers=1, width=64, heads=4, ffn_width=64, max_seq_len=32)
    model = PretrainingModel(config, 5000, nsp=False)
    init_weights(model, config, seed=0)
    h = layer_norm(torch.randn(200, 64, generator=torch.Generator().manual_seed(1)))
    token_embedding = model.encoder.embedding.token.weight
    before = model.mlm_head(h, token_embedding).var(dim=1).mean().item()
    share_a_direction(model.mlm_head.decoder.weight, 0.02, seed=0)
    after = model.mlm_head(h, token_embedding).var(dim=1).mean().item()
    assert before == pytest.approx(1.0, rel=0.1)  # τ²
    assert after == pytest.approx(1 / (1 + 9 / 0.8796**2), rel=0.2)  # the rows' own deviation is that of the cut normal
