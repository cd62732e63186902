"""The degree of homogeneity of every operation of a model, derived from the modules it really has (paper section 3).

Degree k: out(c·x) = c^k·out(x) for c > 0, x the scale invariant parameters. What meets at a sum must have the same degree:
a parameter that breaks that is named. `invariance` measures what is derived here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.model.attention import scale_invariant_attention, softmax_attention
from pipeline.model.encoder import Attention, FeedForward, Layer
from pipeline.model.pretraining import PretrainingModel

PLAIN_NORM = "LayerNorm without affine"


@dataclass(frozen=True)
class Row:
    """One operation: its module (or the attribute that names it), what it is, the degrees, and what is wrong, if anything."""

    name: str
    what: str
    degree_in: int
    degree_out: int
    problem: str | None = None


def claimed_names(model: PretrainingModel) -> set[str]:
    """The parameters x that are scaled: those the model claims; of the baseline, which claims none, the encoder's."""
    return model.scale_invariant_names() or {name for name, _ in model.named_parameters() if name.startswith("encoder.")}


def degrees(model: PretrainingModel) -> list[Row]:
    """Every operation from the embedding to the heads with its degrees, in the order of the forward pass (paper section 3).

    The wiring is `model.encoder.kind`; all else is read off the modules. After a problem the walk goes on with the degree
    the operation would have without it. A module or function that is not known is a problem; nothing is raised.
    """
    encoder, rows = model.encoder, _embedding("encoder.embedding", model.encoder.embedding)
    if encoder.kind == "sibert-a":
        rows += _module("encoder.lift", encoder.lift, rows[-1].degree_out)
    elif encoder.kind == "sibert-d":
        rows.append(Row("encoder.stream", PLAIN_NORM, rows[-1].degree_out, 0))
    else:
        rows += _module("encoder.embedding_norm", encoder.embedding_norm, rows[-1].degree_out)
    for i, layer in enumerate(encoder.layers):
        assert isinstance(layer, Layer)
        rows += _layer(f"encoder.layers.{i}", layer, encoder.kind, rows[-1].degree_out)
    end = rows[-1].degree_out
    if encoder.kind == "bert":
        wrong = None if end == 0 else f"encoder ends at degree {end}, not 0"
        rows.append(Row("encoder", "output", end, end, wrong))
    else:
        rows.append(Row("encoder", PLAIN_NORM, end, 0))
    rows += _heads(model, rows[-1].degree_out)
    return rows + _unaccounted(model, rows)


def _embedding(name: str, embedding: nn.Module) -> list[Row]:
    rows = [row for part, table in embedding.named_children() for row in _module(f"{name}.{part}", table, 0)]
    unequal = {row.degree_out for row in rows} != {1}
    return [*rows, Row(name, "sum", 1, 1, f"{name} sums unequal degrees" if unequal else None)]


def _module(name: str, module: nn.Module, degree: int) -> list[Row]:
    """One module of torch, or nn.Sequential of such, at the input degree `degree`."""
    if isinstance(module, nn.Sequential):
        rows: list[Row] = []
        for part, child in module.named_children():
            rows += _module(f"{name}.{part}", child, rows[-1].degree_out if rows else degree)
        return rows
    if isinstance(module, nn.Embedding):
        return [Row(name, "embedding", degree, degree + 1)]
    if isinstance(module, nn.Linear):
        out, bias = degree + 1, module.bias is not None
        wrong = f"{name}.bias adds degree 1 to a stream of degree {out}" if bias and out != 1 else None
        return [Row(name, "linear with bias" if bias else "linear", degree, out, wrong)]
    if isinstance(module, nn.LayerNorm):
        wrong = f"{name} adds an eps of {module.eps:g} to a variance of degree {2 * degree}" if module.eps and degree else None
        what, out = ("LayerNorm with affine", 1) if module.elementwise_affine else (PLAIN_NORM, 0)
        return [Row(name, what, degree, out, wrong)]
    if isinstance(module, nn.Identity):
        return [Row(name, "identity", degree, degree)]
    kind = type(module).__name__
    return [Row(name, kind, degree, degree, f"{name} is {kind}, whose degree is not known")]


def _function(name: str, function: Callable[..., Tensor], degree_in: int, degree_out: int) -> Row:
    """An attention (of scores of degree `degree_in`) or an activation; `degree_out` as if it were homogeneous."""
    kept = {scale_invariant_attention: "N(ReLU(Q Kᵀ)) V", torch.relu: "ReLU", functional.relu: "ReLU"}
    broken = {softmax_attention: "softmax", functional.gelu: "GeLU"}
    if function in kept:
        return Row(name, kept[function], degree_in, degree_out)
    if function in broken:
        what = broken[function]
        wrong = f"{name} is {what} of degree {degree_in}: not homogeneous" if degree_in else None
        return Row(name, what, degree_in, degree_out, wrong)
    what = getattr(function, "__name__", type(function).__name__)
    return Row(name, what, degree_in, degree_out, f"{name} is {what}, whose degree is not known")


def _branch(name: str, branch: nn.Module, degree: int) -> list[Row]:
    if isinstance(branch, Attention):
        parts = [_module(f"{name}.{part}", getattr(branch, part), degree) for part in ("query", "key", "value")]
        query, key, value = (part[-1].degree_out for part in parts)
        rows = [row for part in parts for row in part]
        rows.append(_function(f"{name}.attend", branch.attend, query + key, value))
    else:
        assert isinstance(branch, FeedForward)
        rows = _module(f"{name}.inner", branch.inner, degree)
        rows.append(_function(f"{name}.activation", branch.activation, rows[-1].degree_out, rows[-1].degree_out))
    return rows + _module(f"{name}.output", branch.output, rows[-1].degree_out)


def _layer(name: str, layer: Layer, kind: str, degree: int) -> list[Row]:
    """One layer on a stream of degree `degree`: LN, branch, sum, and what the wiring (encoder.py) adds to that."""
    rows: list[Row] = []
    for part, branch in (("attention", layer.attention), ("ffn", layer.ffn)):
        if kind != "bert":
            rows.append(Row(f"{name}.join", f"{PLAIN_NORM} before {part}", degree, 0))
        rows += _branch(f"{name}.{part}", branch, degree if kind == "bert" else 0)
        if kind == "sibert-d":
            rows.append(Row(f"{name}.join", f"{PLAIN_NORM} after {part}", rows[-1].degree_out, 0))
        joins = rows[-1].degree_out
        wrong = f"{name}.{part} joins with degree {joins} a stream of degree {degree}" if joins != degree else None
        rows.append(Row(f"{name}.join", f"stream + {part}", joins, degree, wrong))
        if kind == "bert":
            rows += _module(f"{name}.{part}_norm", getattr(layer, f"{part}_norm"), degree)
            degree = rows[-1].degree_out
    return rows


def _heads(model: PretrainingModel, degree: int) -> list[Row]:
    heads = ["mlm_head"] + ["nsp_head"] * (model.nsp_head is not None)
    if model.head_is_invariant:  # degree + 1 - 1
        parts = zip(heads, ("decoder", "classifier"), strict=False)
        return [Row(f"{head}.{part}", "row-normalised decoder <h, w/||w||>", degree, degree) for head, part in parts]
    rows = [Row(head, "not scale invariant, LAMB's: its parameters are not in x", degree, degree) for head in heads]
    if model.mlm_head.kind == "tied":
        wrong = f"mlm_head decodes by encoder.embedding.token.weight: logits of degree {degree + 1}"
        rows[0] = Row("mlm_head", "tied decoder", degree, degree + 1, wrong)
    return rows


def _unaccounted(model: PretrainingModel, rows: Sequence[Row]) -> list[Row]:
    """A claimed parameter whose module is in no row was not walked."""
    walked = {row.name for row in rows}
    names = sorted(name for name in claimed_names(model) if name.rpartition(".")[0] not in walked)
    return [Row(name, "parameter", 0, 1, f"{name} is in no known operation: its degree is not known") for name in names]
