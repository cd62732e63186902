"""Killed, stopped, on other ranks, under other stages: a run that goes on ends where an undisturbed one ends.

The ranks are real processes with gloo between them and are killed by real signals; rank_server.py has only imported for them.
Everything random is seeded with SEED.
"""

import functools
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.checkpoint.layout import step_directories
from pipeline.checkpoint.reader import Checkpoint
from pipeline.run.metrics_file import read_metrics
from tests.helpers.ranks import WITHOUT_REPORT, Death, RankServer
from tests.helpers.running import PAPER_MODEL, SMALL, long, set_options
from tests.helpers.same_run import TIMES, assert_same
from tests.helpers.split_masters import split

SEED = 20261121
STAGES = [*(f"zero{stage}{precision}" for stage in range(4) for precision in ("", "-bf16")), "zero2-offload-bf16"]
OFTEN = ["zero1-bf16", "zero3"]
STOPPED = 75
KILLS = 4  # of each stage and precision
# An epoch is 9.6 steps, accumulation 2 micro batches a rank, the rate decays all along, nothing falls on a round number.
RUN = (
    *SMALL,
    *set_options(
        train__steps=24,
        train__log_every_steps=5,
        train__eval_every_steps=7,
        train__checkpoint_every_steps=4,
        train__keep_last_checkpoints=2,
        train__timeout_s=60,
        model__score_offset=1.5,
    ),
)


def arguments(corpus: Path, run: Path, *options: str, recipe: str = "tiny") -> list[str | Path]:
    return ["pretrain", "--recipe", recipe, "--data", corpus, "--run", run, *RUN, *options]


@pytest.fixture(scope="module")
def undisturbed(rank_server: RankServer, little_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A run of two ranks that is left alone, by its options; each is made once. To be read only."""

    @functools.cache
    def run(*options: str, recipe: str = "tiny") -> Path:
        run = tmp_path_factory.mktemp("undisturbed") / "run"
        done = rank_server.run(arguments(little_corpus, run, *options, recipe=recipe), 2, skip=WITHOUT_REPORT)
        assert done.codes == [0, 0], done.stderr
        return run

    return run


def random_death(generator: random.Random, ranks: int) -> Death:
    """One rank or all; in a step, between its micro batches, or at any fsync or rename of a save."""
    at = generator.choice(["batch", "step", "durable", "durable", "durable"])
    last = {"batch": 40, "step": 16, "durable": 40}[at]
    rank: Any = generator.randrange(ranks)
    return Death(
        rank if at != "durable" else generator.choice([0, 0, rank]), at, generator.randint(1, last), generator.random() < 0.5
    )


@pytest.mark.parametrize("ds_config", [*OFTEN, *long(*(stage for stage in STAGES if stage not in OFTEN))])
def test_random_kills_end_bit_for_bit_where_an_undisturbed_run_ends(
    rank_server: RankServer, little_corpus: Path, undisturbed: Callable[..., Path], tmp_path: Path, ds_config: str
) -> None:
    """Two ranks, KILLS kills a stage and precision; among the recipes AdamW, and LAMB for the head."""
    generator = random.Random(f"{SEED} {ds_config}")
    recipe = ("tiny", "tiny-bert")[STAGES.index(ds_config) % 3 == 2]
    options = set_options(train__ds_config=ds_config)
    if recipe == "tiny-bert":
        options += set_options(optim__schedule__warmup_steps=3, model__score_offset=0)
    elif ds_config.startswith(("zero0", "zero3")):
        options += PAPER_MODEL
    deaths: list[Death] = []
    for number in range(KILLS):  # so many runs would do if each came through before its first death
        killed = tmp_path / f"killed {number}"
        while not (killed / "summary.json").exists():
            death = random_death(generator, 2) if len(deaths) < KILLS else None
            argv = arguments(little_corpus, killed, *options, recipe=recipe)
            ranks = rank_server.run(argv, 2, die=death, skip=WITHOUT_REPORT)
            if ranks.codes != [0, 0]:
                assert death is not None, ranks.stderr
                assert -signal.SIGKILL in ranks.codes, ranks.stderr
                deaths.append(death)
        assert_same(killed, undisturbed(*options, recipe=recipe))
        if len(deaths) >= KILLS:
            break
    told = [f"{d.at} {d.count} of {'all' if d.everyone else d.rank}" for d in deaths]
    print(f"{ds_config}: killed at {', '.join(told)}")
    assert len(deaths) == KILLS


@pytest.mark.parametrize("number", [signal.SIGTERM, *long(signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)])
def test_a_signal_to_any_rank_saves_at_once_and_the_run_goes_on_bit_for_bit(
    rank_server: RankServer, little_corpus: Path, undisturbed: Callable[..., Path], tmp_path: Path, number: signal.Signals
) -> None:
    """Signalled again and again in the fifth step or so, alternately rank 1 and rank 0: parts end between two records."""
    stopped = tmp_path / "stopped"
    steps: list[int] = []
    for attempt in range(40):
        to_one = Death((attempt + 1) % 2, "batch", 10, signal=number)
        ranks = rank_server.run(arguments(little_corpus, stopped), 2, die=to_one, skip=WITHOUT_REPORT)
        codes = ranks.codes
        if codes == [0, 0]:
            break
        assert codes == [STOPPED, STOPPED], ranks.stderr
        assert f"(signal {number.name}) and saved" in ranks.stdout
        steps.append(Checkpoint(step_directories(stopped)[0]).step)
    assert steps == sorted(set(steps)), "each part gets further"
    assert len(steps) > 2
    assert_same(stopped, undisturbed())


def worlds(*of: tuple[int, str]) -> Sequence[tuple[int, str]]:
    return of


@pytest.mark.parametrize(
    "parts",
    [
        worlds((2, "zero1"), (1, "zero1"), (4, "zero1")),
        worlds((4, "zero3"), (1, "zero0"), (2, "zero2")),
        *long(worlds((2, "zero1"), (2, "zero3"), (2, "zero1")), worlds((2, "zero0"), (4, "zero3"), (1, "zero2-offload"))),
    ],
    ids=lambda parts: " ".join(f"{ranks}x{stage}" for ranks, stage in parts),
)
def test_another_number_of_ranks_and_another_stage_read_the_same_batches_to_the_same_losses(
    rank_server: RankServer,
    little_corpus: Path,
    undisturbed: Callable[..., Path],
    tmp_path: Path,
    parts: Sequence[tuple[int, str]],
) -> None:
    """Stopped twice in the middle of a logging window; LAMB's moments come along. The oracle is one run of 2 ranks."""
    head = PAPER_MODEL
    run = tmp_path / "run"
    for number, (ranks, stage) in enumerate(parts):
        argv = arguments(little_corpus, run, *head, *set_options(train__ds_config=stage))
        last = number == len(parts) - 1
        stop = None if last else Death(ranks - 1, "step", 6, signal=signal.SIGTERM)  # in one step, to stop after the next
        done = rank_server.run(argv, ranks, die=stop, skip=WITHOUT_REPORT)
        assert done.codes == [0 if last else STOPPED] * ranks, done.stderr
        found = Checkpoint(step_directories(run)[0])
        assert (found.step, found.world_size) == (24 if last else 7 * (number + 1), ranks)
    train, evaluations = read_metrics(run / "metrics.jsonl")
    expected, expected_evaluations = read_metrics(undisturbed(*head) / "metrics.jsonl")
    for ours, theirs in zip([*train, *evaluations], [*expected, *expected_evaluations], strict=True):
        for key in theirs.keys() - TIMES - {"world_size", "param_grad_cosine", "kind"}:
            if not isinstance(theirs[key], dict):  # the loss by token frequency has a test of its own, on any ranks
                assert ours[key] == pytest.approx(theirs[key], rel=1e-4), (key, ours["step"])


@pytest.mark.parametrize("recipe", ["tiny", "tiny-bert"])
def test_what_is_saved_again_is_what_was_loaded_bit_for_bit(
    rank_server: RankServer, little_corpus: Path, tmp_path: Path, recipe: str
) -> None:
    """Masters and moments (LAMB's, AdamW's) through other ranks, stages, precisions and offloading, the update itself left out:
    each start loads, does nothing to the weights, is asked to stop, and saves. Splitting may cost a master its last bit."""
    run = tmp_path / "run"
    options = PAPER_MODEL if recipe == "tiny" else set_options(optim__schedule__warmup_steps=3, model__score_offset=0)
    places = worlds(
        (2, "zero2-offload-bf16"), (4, "zero3-bf16"), (1, "zero0-bf16"), (2, "zero3-offload"), (1, "zero1-bf16"), (4, "zero0")
    )
    expected: dict[tuple[str, str], torch.Tensor] = {}
    for number, (ranks, stage) in enumerate(places):
        argv = arguments(little_corpus, run, *options, *set_options(train__ds_config=stage), recipe=recipe)
        skip = [*WITHOUT_REPORT, *(["pipeline.optim.optimizer:PretrainingOptimizer.step"] if number else [])]
        done = rank_server.run(argv, ranks, skip=skip, die=Death(ranks - 1, "batch", 5, signal=signal.SIGTERM))
        assert done.codes == [STOPPED] * ranks, (stage, done.stderr)
        found = Checkpoint(step_directories(run)[0])
        assert (found.world_size, found.manifest["ds_config"]) == (ranks, stage)
        stored = {(kind, name): found.whole(kind, name) for kind, name in found._pieces}
        assert stored.keys() == (expected or stored).keys()
        for (kind, name), tensor in expected.items():
            is_split = kind == "param" and stage in ("zero1-bf16", "zero3-bf16")
            wanted = split(tensor.flatten()).values().view_as(tensor) if is_split else tensor
            assert torch.equal(stored[kind, name], wanted), (stage, kind, name)
        expected = stored
    assert {kind for kind, _ in expected} == {"param", "exp_avg", "exp_avg_sq"}
