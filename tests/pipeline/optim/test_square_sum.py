"""||x||² of heavy-tailed vectors, against float64: to 1e-7 whatever the sizes and the threads."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from pipeline.optim.decision import ROW, SHORT, decide, square_sum
from pipeline.optim.fp32_vector import CHUNK_ELEMENTS
from pipeline.optim.partitions import replicated

SEED = 20261128
WITHIN = 1e-7  # of the norm, relative


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def heavy(tails: str, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    normal = torch.randn(size, generator=generator, dtype=torch.float64)
    if tails == "one large value":
        normal[size // 2] = 3000
        return normal.float()
    if tails == "log-normal":
        return torch.exp(3 * normal).float()
    degrees = {"Student 1.5": 1.5, "Cauchy": 1.0}[tails]
    uniform = torch.rand(size, generator=generator, dtype=torch.float64).clamp(min=1e-12)
    return (normal * uniform.pow(-1 / degrees)).float()  # the tail exponent of Student's t with so many degrees


@pytest.mark.parametrize("tails", ["one large value", "log-normal", "Student 1.5", "Cauchy"])
@pytest.mark.parametrize("size", [1, 127, 128, 129, 100_000, CHUNK_ELEMENTS + 1, 4 * CHUNK_ELEMENTS + 77])
def test_a_heavy_tail_swallows_nothing(threads: int, tails: str, size: int) -> None:
    x = heavy(tails, size)
    exact = math.sqrt(float(x.double().square().sum()))
    assert math.sqrt(float(square_sum(x))) == pytest.approx(exact, rel=WITHIN)


@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_a_row_that_is_most_of_all(threads: int, share: float) -> None:
    """Nothing cancels its rounding errors: 300 rows of a Student's t of their own, in the middle of smaller ones."""
    for seed in range(300):
        torch.manual_seed(seed)
        row = torch.distributions.StudentT(1.2).sample((2 * ROW,)).double()
        others = torch.randn(50 * ROW, dtype=torch.float64)
        scale = math.sqrt(share / (1 - share + 1e-9)) * float(others.norm() / row.norm())
        x = torch.cat([others[: 20 * ROW + 7], scale * row, others[20 * ROW + 7 :]]).float()
        exact = float(x.double().square().sum()) ** 0.5
        assert float(square_sum(x)) ** 0.5 == pytest.approx(exact, rel=WITHIN)


@pytest.mark.parametrize("value", [1 / 3, 1.1547698, 0.7])
@pytest.mark.parametrize("alike", [2, 12, 40])
def test_rows_that_are_the_same_have_the_same_error(threads: int, value: float, alike: int) -> None:
    """They cancel nothing, whether they are all of a vector, or most of it, scattered among small ones."""
    few = torch.randn(64 * ROW, generator=torch.Generator().manual_seed(SEED)) * 1e-3
    few.view(-1, ROW)[torch.arange(alike) * 13 % 64] = value
    for x in (few, torch.full((alike * ROW,), value), torch.full((alike * ROW + 77,), value)):
        exact = math.sqrt(float(x.double().square().sum()))
        assert math.sqrt(float(square_sum(x))) == pytest.approx(exact, rel=WITHIN)


@pytest.mark.parametrize("scale", [1e-16, 1e-19, 1e-21, 1e-24, 1e-38, 1e-42])
@pytest.mark.parametrize("size", [1, 255, ROW, 10 * ROW + 1])
def test_squares_that_fp32_cannot_hold_count(threads: int, scale: float, size: int) -> None:
    """Down to the denormal numbers, a norm is not 0."""
    x = (heavy("Student 1.5", size).double() * scale).float()
    exact = math.sqrt(float(x.double().square().sum()))
    assert exact > 0
    assert math.sqrt(float(square_sum(x))) / exact == pytest.approx(1, rel=WITHIN)


def test_a_dot_product_in_fp32_would_not_do() -> None:
    """The test above can fail: what this replaces is off by more on one thread."""
    torch.set_num_threads(1)
    x = heavy("one large value", CHUNK_ELEMENTS)
    exact = float(x.double().square().sum())
    assert abs(float(torch.dot(x, x)) - exact) / exact / 2 > 10 * WITHIN


@pytest.mark.parametrize("tails", ["one large value", "Student 1.5"])
def test_the_decision_has_these_norms(threads: int, tails: str) -> None:
    """Several tensors of one clip set, chunks and rows cut anywhere, against float64."""
    sizes = (3 * CHUNK_ELEMENTS + 5, 1000, 1)
    parameters = [torch.nn.Parameter(heavy(tails, size)) for size in sizes]
    for p in parameters:
        p.grad = heavy(tails, p.numel()).flip(0)
    names = [str(size) for size in sizes]
    group = {"name": "x", "names": names, "params": parameters, "rule": "sgd", "clip_set": "x"}
    groups = [{**group, "lr": 0.1, "weight_decay": 0.01, "clip_c": 2.0}]
    decision = decide(replicated(list(zip(names, parameters, strict=True)), groups), groups, None, 1)
    for ours, tensors in ((decision.x_norm, parameters), (decision.g_norm, [p.grad for p in parameters])):
        exact = math.sqrt(sum(float(t.detach().double().square().sum()) for t in tensors if t is not None))
        assert ours == pytest.approx(exact, rel=WITHIN)


def test_short_tensors_that_are_taken_together_stay_in_their_sets() -> None:
    """Tensors of two sets in turn, runs of them longer than one chunk, the longest that counts as short and the next."""
    sizes = (SHORT, SHORT, 1, SHORT + 1, SHORT, SHORT, SHORT, 77)
    parameters = [torch.nn.Parameter(heavy("Student 1.5", size)) for size in sizes * 2]
    gradients = [heavy("Cauchy", p.numel()) for p in parameters]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g
    of_set = {"a": (0, 1, 2, 3, 4, 5, 6, 9, 15), "b": (7, 8, 10, 11, 12, 13, 14)}
    names = [str(at) for at in range(len(parameters))]
    groups = [
        {"name": key, "names": [names[at] for at in ats], "params": [parameters[at] for at in ats], "rule": "sgd"}
        | {"clip_set": key, "lr": 0.1, "weight_decay": 0.01, "clip_c": 2.0}
        for key, ats in of_set.items()
    ]
    decision = decide(replicated(list(zip(names, parameters, strict=True)), groups), groups, None, 1)
    for key, ats in of_set.items():
        exact = [math.sqrt(sum(float(t[at].detach().double().square().sum()) for at in ats)) for t in (parameters, gradients)]
        assert decision.sets[key][:2] == pytest.approx(exact, rel=WITHIN)
