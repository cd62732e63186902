"""An evaluation costs no step: what ends the run in it, a kill or a wish to stop, finds the step before it saved."""

import signal
from pathlib import Path

import pytest

from pipeline.checkpoint.layout import step_directories
from pipeline.run.metrics_file import read_metrics
from tests.helpers.ranks import WITHOUT_REPORT, Death, RankServer
from tests.helpers.running import SMALL, set_options
from tests.helpers.same_run import assert_same

STOPPED = 75
STEPS = 6
EVALUATION = "pipeline.train.evaluate:evaluate"  # the first is after step 3, the second is the last


def pretrain(run: Path, corpus: Path) -> list[str | Path]:
    rhythm = set_options(train__steps=STEPS, train__eval_every_steps=3, train__checkpoint_every_steps=6, train__timeout_s=60)
    return ["pretrain", "--recipe", "tiny", "--data", corpus, "--run", run, *SMALL, *rhythm]


@pytest.fixture(scope="module")
def undisturbed(rank_server: RankServer, little_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    ranks = rank_server.run(pretrain(run, little_corpus), ranks=2, skip=WITHOUT_REPORT)
    assert ranks.codes == [0, 0], ranks.stderr
    return run


def saved_steps(run: Path) -> list[str]:
    return [directory.name for directory in step_directories(run)]


def test_a_kill_in_the_last_evaluation_costs_the_evaluation_alone(
    rank_server: RankServer, little_corpus: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    rank_server.run(pretrain(run, little_corpus), ranks=2, die=Death("all", EVALUATION, 2), skip=WITHOUT_REPORT)
    assert saved_steps(run) == [f"step-{STEPS:08d}"]
    assert len(read_metrics(run / "metrics.jsonl")[1]) == 1
    again = rank_server.run(pretrain(run, little_corpus), ranks=2, skip=WITHOUT_REPORT)
    assert again.codes == [0, 0], again.stderr
    assert f"going on from step {STEPS}" in again.stdout
    assert_same(run, undisturbed)


@pytest.mark.parametrize("evaluation", [1, 2])
def test_a_wish_to_stop_is_heeded_in_an_evaluation(
    rank_server: RankServer, little_corpus: Path, undisturbed: Path, tmp_path: Path, evaluation: int
) -> None:
    """The signal comes to rank 1 alone, when the evaluation begins; both end it at once, and have saved."""
    run = tmp_path / "run"
    warned = Death(1, EVALUATION, evaluation, signal=signal.SIGTERM)
    stopped = rank_server.run(pretrain(run, little_corpus), ranks=2, die=warned, skip=WITHOUT_REPORT)
    assert stopped.codes == [STOPPED, STOPPED], stopped.stderr
    assert saved_steps(run) == [f"step-{3 * evaluation:08d}"]
    assert len(read_metrics(run / "metrics.jsonl")[1]) == evaluation - 1
    again = rank_server.run(pretrain(run, little_corpus), ranks=2, skip=WITHOUT_REPORT)
    assert again.codes == [0, 0], again.stderr
    assert_same(run, undisturbed)
