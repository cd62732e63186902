"""One decision a step for the whole model, before any partition is touched.

Each rank sums squares over the fragments it owns, one all-reduce of a few float64 scalars makes them the model's, and the
same numbers on every rank give the same decision: skip (a non-finite value anywhere), the clip coefficient of each clip
set, the trust ratio of each LAMB tensor.

A clip set is what shares one norm: all scale invariant parameters together, as in the paper, or each separately scale
invariant matrix by itself. It may be spread over several parameter groups, sub-groups, partitions and ranks.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.model.precision import at_least_fp32
from pipeline.optim import lamb
from pipeline.optim.fp32_vector import Fp32Vector, longest_chunk
from pipeline.optim.partitions import Fragment, Partitions
from pipeline.optim.relative_clip import clip_coefficient, clip_threshold

STOP = ("stop", None)
ROW = 256  # elements whose squares are added in fp32; the sums of rows are added in float64
MOST_OF = 1 / 8  # of a sum of squares: a row, or rows that are the same, of more than that are added exactly
LEAST = 1e-30  # of a sum of squares in fp32, which has none below 1.4e-45 and few digits down to 1e-38
SHORT = 2**17  # elements of a vector that is copied beside others to be squared with them
Numbers = Tensor | Fp32Vector
Product = tuple[int, Numbers, Numbers]  # the slot of a sum, and two vectors, of which a·b is added to it


class ClipSet(NamedTuple):
    """Of one clip set: global norms, the clip threshold (None where the rule has none), and the coefficient."""

    x_norm: float
    g_norm: float
    threshold: float | None
    coefficient: float


@dataclass(frozen=True)
class Decision:
    """Of one step.

    `coefficients` are the groups'; `sets` the clip sets by name. `x_norm`, `g_norm` are of everything that is clipped.
    `cosine` is <x, g>/(||x||·||g||) of it, 0 for a scale invariant function (Euler), where it was asked for.
    `stop`: some rank was asked to end the run after this step.
    `trust_ratios` are of LAMB's tensors, by name; `lamb_moved` names those of which this rank has a gradient.
    """

    finite: bool
    stop: bool = False
    coefficients: tuple[float, ...] = ()
    sets: dict[str, ClipSet] = field(default_factory=dict)
    x_norm: float = math.nan
    g_norm: float = math.nan
    cosine: float | None = None
    trust_ratios: dict[str, float] = field(default_factory=dict)
    lamb_moved: frozenset[str] = frozenset()

    @property
    def coefficient(self) -> float:
        """The smallest coefficient of all clip sets."""
        return min((s.coefficient for s in self.sets.values()), default=1.0) if self.finite else 0.0

    @property
    def threshold(self) -> float | None:
        """The clip threshold, where there is one for all."""
        return next(iter(self.sets.values())).threshold if len(self.sets) == 1 else None

    @property
    def clipped(self) -> bool:
        """Was any clip set's gradient made shorter?"""
        return self.finite and self.coefficient < 1


def decide(
    partitions: Partitions,
    groups: Sequence[dict[str, Any]],
    lamb_state: Any,
    lamb_count: int,
    with_cosine: bool = False,
    asks_to_stop: bool = False,
) -> Decision:
    """The step's decision. `groups` are the optimiser's, `lamb_state(fragment)` its moments' views (m, v), `lamb_count`
    the number this update would have in LAMB's bias correction. A rank's wish to stop travels with the norms, so that all ranks
    agree on the step without another collective."""
    gradients = partitions.gradients()
    moved = [f for f in partitions.fragments if groups[f.group]["rule"] == "lamb" and f.name in gradients]

    def directions() -> Iterator[tuple[str, Tensor]]:
        for f in moved:
            masters = (piece.values() for piece in f.master.split(longest_chunk(f.master.is_cuda)))
            for _, r in lamb_directions(masters, lamb_state(f), gradients[f.name], groups[f.group], lamb_count):
                yield f.name, r

    sums = _global_sums(partitions, groups, gradients, moved, directions(), with_cosine, asks_to_stop)
    stop = sums.pop(STOP) > 0
    if not all(map(math.isfinite, sums.values())):
        return Decision(finite=False, stop=stop)
    sets = _clip_sets(groups, sums)
    x_norm, g_norm = (math.hypot(*(getattr(s, norm) for s in sets.values())) for norm in ("x_norm", "g_norm"))
    inner = sum(sums["xg", i] for i, group in enumerate(groups) if group["rule"] != "lamb") if with_cosine else 0.0
    ratios = {
        name: lamb.trust_ratio(math.sqrt(sums["ww", name]), math.sqrt(sums["rr", name]), group["weight_decay"])
        for group in groups
        if group["rule"] == "lamb"
        for name in group["names"]
    }
    return Decision(
        finite=True,
        stop=stop,
        coefficients=tuple(sets[group["clip_set"]].coefficient if group["rule"] != "lamb" else 1.0 for group in groups),
        sets=sets,
        x_norm=x_norm,
        g_norm=g_norm,
        cosine=inner / (x_norm * g_norm) if with_cosine and x_norm * g_norm else None,
        trust_ratios=ratios,
        lamb_moved=frozenset(f.name for f in moved),
    )


def lamb_directions(
    masters: Iterable[Tensor], moments: tuple[Tensor, Tensor], gradient: Tensor, group: Mapping[str, Any], count: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """w and r of a fragment, piece by piece: whole, temporaries would be the largest of the step. Taken twice, for the norm and
    for the update, they are the same both times."""
    settings = {key: group[key] for key in ("betas", "eps", "weight_decay")}
    size = longest_chunk(gradient.is_cuda)
    for w, m, v, g in zip(masters, *(t.split(size) for t in (*moments, gradient)), strict=True):
        yield w, lamb.direction(w, (m, v), at_least_fp32(g), count=count, **settings)


def _clip_sets(groups: Sequence[dict[str, Any]], sums: dict[tuple[str, Any], float]) -> dict[str, ClipSet]:
    members = defaultdict(list)
    for index, group in enumerate(groups):
        if group["rule"] != "lamb":
            members[group["clip_set"]].append(index)
    sets = {}
    for name, indices in members.items():
        x_norm, g_norm = (math.sqrt(sum(sums[kind, i] for i in indices)) for kind in ("xx", "gg"))
        group = groups[indices[0]]
        if group["rule"] == "sgd":
            threshold = clip_threshold(x_norm, group["lr"], group["weight_decay"], group["clip_c"])
            sets[name] = ClipSet(x_norm, g_norm, threshold, clip_coefficient(g_norm, threshold))
        else:  # the usual clipping
            sets[name] = ClipSet(x_norm, g_norm, None, clip_coefficient(g_norm, group["max_grad_norm"]))
    return sets


def _global_sums(
    partitions: Partitions,
    groups: Sequence[dict[str, Any]],
    gradients: dict[str, Tensor],
    moved: Sequence[Fragment],
    directions: Iterable[tuple[str, Tensor]],
    with_cosine: bool,
    asks_to_stop: bool,
) -> dict[tuple[str, Any], float]:
    """Of each group ||x||² ("xx"), ||g||² ("gg") and perhaps <x, g> ("xg"), of each LAMB tensor ||w||² and ||r||²; and how many
    ranks ask to STOP (over the copies)."""
    kinds = ("xx", "gg", "xg") if with_cosine else ("xx", "gg")
    keys: list[tuple[str, Any]] = [(kind, index) for index in range(len(groups)) for kind in kinds]
    keys += [(kind, n) for group in groups if group["rule"] == "lamb" for n in group["names"] for kind in ("ww", "rr")]
    keys.append(STOP)
    slot = {key: i for i, key in enumerate(keys)}

    def products() -> Iterator[Product]:
        for g, span in partitions.master_spans:
            if groups[g]["rule"] != "lamb":
                yield slot["xx", g], span, span
        for g, gradient in partitions.spans(gradients):
            yield slot["gg", g], gradient, gradient
        for f in partitions.fragments:
            if with_cosine and f.name in gradients and groups[f.group]["rule"] != "lamb":
                yield slot["xg", f.group], f.master, gradients[f.name]
        for f in moved:
            w = f.master
            yield slot["ww", f.name], w, w
        for name, r in directions:
            yield slot["rr", name], r, r

    return dict(zip(keys, _reduced(partitions, products(), len(keys), {slot[STOP]: float(asks_to_stop)}), strict=True))


def _reduced(partitions: Partitions, products: Iterable[Product], size: int, numbers: Mapping[int, float]) -> list[float]:
    """The global sums of `size` slots: products a·b, and plain numbers by slot."""
    sums = torch.zeros(size, dtype=torch.float64, device=partitions.device)
    dots = list(_dots(products))
    if dots:
        slots, values = zip(*dots, strict=True)
        dots_64 = torch.stack(values).to(partitions.device)
        # Not index_add_: on a GPU its atomics add in any order, and the last bit would change from run to run.
        sums += _adding_up(slots, size, partitions.device) @ dots_64
    for slot, number in numbers.items():
        if number:
            sums[slot] += number
    if partitions.all_reduce_sum is not None:
        partitions.all_reduce_sum(sums)
        sums /= partitions.copies
    return sums.tolist()  # the step's one host synchronisation


def _dots(products: Iterable[Product]) -> Iterator[tuple[int, Tensor]]:
    """(slot, a·b) of each chunk. Short vectors of one slot are squared together: a call costs more than they do."""
    short: list[Tensor] = []
    short_slot, waiting = -1, 0
    for slot, a, b in products:
        for part_a, part_b in _chunks(a, b):
            if part_a is not part_b:
                yield slot, _dot(part_a, part_b)
            elif part_a.numel() > SHORT:
                yield slot, square_sum(_values(part_a))
            else:
                if short and (slot != short_slot or waiting + part_a.numel() > longest_chunk(part_a.is_cuda)):
                    yield short_slot, square_sum(torch.cat(short))
                    short, waiting = [], 0
                short_slot, waiting = slot, waiting + part_a.numel()
                short.append(_values(part_a))
    if short:
        yield short_slot, square_sum(torch.cat(short))


@cache
def _adding_up(slots: tuple[int, ...], size: int, device: torch.device) -> Tensor:
    """The 0/1 matrix [size, len(slots)] that adds each number into its slot; it is the same at every step."""
    return torch.nn.functional.one_hot(torch.tensor(slots), size).t().to(device, torch.float64)


def square_sum(x: Tensor) -> Tensor:
    """||x||² of a 1-D tensor, a float64 scalar; its root is right to 1e-7 whatever the tails of x and the number of threads.

    An fp32 sum keeps 24 bits, and in a heavy-tailed vector one large square swallows the small ones that are added to it: a dot
    product of 2^19 elements on one thread is off by up to 6e-5. So fp32 adds no more than a ROW. Of many rows the errors of
    1e-7 cancel; that of one row which is most of x does not, nor do those of rows that are the same, as in a constant vector
    (2.4e-7): such rows are added in float64. So is all of a vector whose squares are too small for fp32, of which nothing would
    be left below 1e-23. (Not on a GPU, where looking for it would hold the host: 2.4e-7 was the most without it, on a CPU.)
    """
    rows = x[: x.numel() - x.numel() % ROW].view(-1, ROW)
    squares = torch.linalg.vector_norm(rows, dim=1).square_()
    square = squares.sum(dtype=torch.float64)
    if not x.is_cuda and rows.numel():
        largest = float(squares.max())
        alike = int((squares == largest).sum())
        if alike * largest > MOST_OF * float(square):
            square += alike * (rows[int(squares.argmax())].double().square().sum() - largest)
    rest = x[rows.numel() :].double()
    if rest.numel():
        square = square + torch.dot(rest, rest).to(x.dtype)  # infinite where a row's would be
    return x.double().square().sum() if not x.is_cuda and float(square) < LEAST else square


def _dot(a: Numbers, b: Numbers) -> Tensor:
    """<a, b>, for the cosine alone, which is compared with 1e-5."""
    return torch.dot(_values(a), _values(b)).double()


def _values(numbers: Numbers) -> Tensor:
    return numbers.values() if isinstance(numbers, Fp32Vector) else at_least_fp32(numbers)


def _chunks(a: Numbers, b: Numbers) -> Sequence[tuple[Numbers, Numbers]]:
    longest = longest_chunk(a.is_cuda)
    if a.numel() <= longest:
        return ((a, b),)
    parts = a.split(longest)
    return list(zip(parts, parts if b is a else b.split(longest), strict=True))
