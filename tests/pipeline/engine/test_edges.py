"""What is defined at the edges of the rule is what every ZeRO stage does, on two ranks: each step of edges_worker.py."""

import math
from typing import Any

import pytest
import torch

from pipeline.config.ds_config import DS_CONFIGS
from tests.helpers.ranks import RankServer
from tests.pipeline.engine.edges_worker import EDGES, SHAPES

NAMES = sorted(path.stem for path in DS_CONFIGS.glob("*.json"))
Run = tuple[str, int]
RUNS = pytest.mark.parametrize(
    "run", [(name, accumulation) for name in NAMES for accumulation in (1, 2)], ids=lambda r: f"{r[0]}-{r[1]}"
)
SKIPPED = {"nan on one rank", "inf on one rank", "square too large for fp32"}


@pytest.fixture(scope="module")
def results(rank_server: RankServer, tmp_path_factory: pytest.TempPathFactory) -> dict[Run, Any]:
    out = tmp_path_factory.mktemp("edges") / "results.pt"
    done = rank_server.run([out, *NAMES], 2, program="tests.pipeline.engine.edges_worker")
    assert done.codes == [0, 0], done.stderr
    return torch.load(out)  # type: ignore[no-any-return]


@RUNS
def test_building_the_engine_leaves_the_weights_alone(results: dict[Run, Any], run: Run) -> None:
    """Some wrappers step once on zero gradients while they are built, which would decay the weights."""
    for name, start in results[run]["start"].items():
        assert torch.equal(results[run]["built"][name], start.double())


@RUNS
@pytest.mark.parametrize("edge", [edge for edge in EDGES if edge not in SKIPPED])
def test_each_step_is_algorithm_1(results: dict[Run, Any], run: Run, edge: str) -> None:
    step = results[run]["edges"][edge]
    lr, weight_decay, clip_c = (step["settings"][key] for key in ("lr", "weight_decay", "clip_c"))
    x_norm, g_norm = (torch.cat([t.flatten() for t in step[what].values()]).norm().item() for what in ("before", "gradient"))
    threshold = math.inf if lr == 0 or clip_c == math.inf else (2 * clip_c * weight_decay / lr) ** 0.5 * x_norm
    coefficient = 1.0 if g_norm <= threshold else threshold / g_norm
    assert step["finite"] == [True, True]
    assert (step["x_norm"], step["g_norm"], step["threshold"]) == pytest.approx((x_norm, g_norm, threshold), rel=1e-6)
    assert step["coefficient"] == pytest.approx([coefficient] * 2, rel=1e-6)
    assert step["coefficient"][0].hex() == step["coefficient"][1].hex()
    for name, before in step["before"].items():
        # An unused parameter has the gradient 0, and not that of the step before.
        gradient = step["gradient"].get(name, torch.zeros_like(before))
        expected = (1 - lr * weight_decay) * before - lr * coefficient * gradient
        assert torch.allclose(step["after"][name], expected, rtol=1e-6, atol=1e-6), name


def test_the_edges_are_what_their_names_say(results: dict[Run, Any]) -> None:
    """Of the values that the test above takes as they come: which side of the clip each edge is on."""
    edges = results["zero0", 1]["edges"]
    assert {e for e in edges if e not in SKIPPED and edges[e]["coefficient"][0] < 1} == {"clipped", "lr changed", "x zero"}
    assert edges["zero gradient"]["g_norm"] == 0
    assert (edges["x zero"]["x_norm"], edges["x zero"]["coefficient"][0]) == (0, 0)
    assert all((t == 0).all() for t in edges["x zero"]["after"].values())
    assert all(torch.equal(edges["lr zero"]["before"][n], t) for n, t in edges["lr zero"]["after"].items())
    assert edges["lr changed"]["threshold"] < edges["clipped"]["threshold"]


@RUNS
@pytest.mark.parametrize("edge", sorted(SKIPPED))
def test_a_non_finite_gradient_on_one_rank_makes_all_ranks_skip(results: dict[Run, Any], run: Run, edge: str) -> None:
    edges = results[run]["edges"]
    step, previous = edges[edge], edges[list(edges)[list(edges).index(edge) - 1]]
    assert step["finite"] == [False, False]
    assert step["updates"] == previous["updates"]
    assert all(torch.equal(step["before"][name], after) for name, after in step["after"].items())


@RUNS
def test_a_frozen_parameter_is_neither_counted_nor_moved(results: dict[Run, Any], run: Run) -> None:
    generator = torch.Generator().manual_seed(0)
    start = {name: torch.randint(-8, 9, shape, generator=generator) / 8 for name, shape in SHAPES.items()}
    assert torch.equal(results[run]["frozen"], start["frozen"])
