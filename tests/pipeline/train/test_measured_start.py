"""Admin and GradInit through the ordinary `pretrain`: one start on any ranks and under any stage, found once and kept."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.checkpoint.layout import step_directories
from pipeline.checkpoint.reader import Checkpoint
from pipeline.checkpoint.snapshot import PARAM
from pipeline.report import run_page
from pipeline.run.metrics_file import read_metrics
from pipeline.run.start_file import read_start, write_start
from tests.helpers.ranks import WITHOUT_REPORT, Death, RankServer
from tests.helpers.running import SMALL, set_options
from tests.helpers.same_run import assert_same

RUN = (
    *SMALL,
    *set_options(
        optim__schedule__warmup_steps=0,
        model__init_tokens=256,
        model__gradinit__iterations=3,
        model__gradinit__gamma=1e9,
        train__steps=4,
        train__eval_every_steps=4,
        train__checkpoint_every_steps=2,
    ),
)
STOPPED = 75


def arguments(corpus: Path, run: Path, init: str, *options: str) -> list[str | Path]:
    settings = [*RUN, *set_options(model__init=init), *options]
    return ["pretrain", "--recipe", "tiny-bert", "--data", corpus, "--run", run, *settings]


@pytest.fixture(scope="module", params=["admin", "gradinit"])
def alone(
    request: pytest.FixtureRequest, rank_server: RankServer, little_corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, str]:
    """(model.init, a run of one process, what it said)."""
    run = tmp_path_factory.mktemp("alone") / request.param
    done = rank_server.run(arguments(little_corpus, run, request.param), skip=WITHOUT_REPORT)
    assert done.codes == [0], done.stderr
    return request.param, run, done.stdout


def start_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "start.json").read_text(encoding="utf-8"))
    return found


def test_it_is_said_and_kept(alone: tuple[str, Path, str]) -> None:
    init, run, told = alone
    start = start_of(run)
    assert start["init"] == init
    first = {"admin": "Admin: ω of 4 shortcuts from 1 to ", "gradinit": "GradInit 1/3: ‖g‖_1 = "}
    assert first[init] in told
    if init == "gradinit":
        assert "in 3 iterations of 8 sequences, " in told
    assert start["figures"]["time_s"] > 0
    checkpoint = Checkpoint(step_directories(run)[0])
    names = [name for name in checkpoint.manifest["parameters"] if name.endswith("omega")]
    assert names == (list(start["multipliers"]) if init == "admin" else [])
    for name in names:
        omega, began = checkpoint.whole(PARAM, name), start["multipliers"][name]
        assert omega.std() > 0, "it is trained"
        assert torch.allclose(omega, torch.full_like(omega, began), atol=0.05)


@pytest.mark.parametrize(
    ("ranks", "stage"),
    [
        (2, "zero3"),
        *(pytest.param(2, stage, marks=pytest.mark.long) for stage in ("zero0", "zero1-bf16", "zero2", "zero3-bf16")),
    ],
)
def test_every_stage_begins_with_it(
    alone: tuple[str, Path, str], rank_server: RankServer, little_corpus: Path, tmp_path: Path, ranks: int, stage: str
) -> None:
    init, run, _ = alone
    other = tmp_path / "run"
    argv = arguments(little_corpus, other, init, *set_options(train__ds_config=stage))
    done = rank_server.run(argv, ranks, skip=WITHOUT_REPORT)
    assert done.codes == [0] * ranks, done.stderr
    assert start_of(other)["multipliers"] == start_of(run)["multipliers"]
    rel = 0.02 if "bf16" in stage else 1e-4
    for ours, theirs in zip(read_metrics(other / "metrics.jsonl")[0], read_metrics(run / "metrics.jsonl")[0], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=rel)
        assert ours["param_norm"] == pytest.approx(theirs["param_norm"], rel=rel)


def test_what_was_found_is_not_looked_for_again(
    alone: tuple[str, Path, str], rank_server: RankServer, little_corpus: Path, tmp_path: Path
) -> None:
    """Killed before the first checkpoint, it reads the start; with one, it needs none; it ends where the other run ends."""
    init, undisturbed, _ = alone
    run = tmp_path / "run"
    argv = arguments(little_corpus, run, init)
    killed = rank_server.run(argv, die=Death(0, "step", 2), skip=WITHOUT_REPORT)
    assert killed.codes == [-signal.SIGKILL]
    found = (run / "start.json").read_bytes()
    assert not step_directories(run)
    again = rank_server.run(argv, die=Death(0, "step", 2, signal=signal.SIGTERM), skip=WITHOUT_REPORT)
    assert again.codes == [STOPPED], again.stderr
    assert ": found by an earlier start of this run" in again.stdout
    assert "GradInit 1/3" not in again.stdout
    assert step_directories(run)
    last = rank_server.run(argv, skip=WITHOUT_REPORT)
    assert last.codes == [0], last.stderr
    assert "going on from step " in last.stdout
    assert "found by an earlier start" not in last.stdout
    assert (run / "start.json").read_bytes() == found
    assert_same(run, undisturbed)


def test_asked_to_stop_in_the_search_nothing_is_kept(rank_server: RankServer, little_corpus: Path, tmp_path: Path) -> None:
    argv = arguments(little_corpus, tmp_path / "run", "gradinit", *set_options(model__gradinit__iterations=500))
    signalled = Death(1, "pipeline.distributed.watchdog:Watchdog.beat", 3, signal=signal.SIGTERM)
    done = rank_server.run(argv, 2, die=signalled, skip=WITHOUT_REPORT)
    assert done.codes == [STOPPED, STOPPED], done.stderr
    assert "stopped while the start was being measured" in done.stdout
    assert not (tmp_path / "run" / "start.json").exists()


def test_the_start_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_start(tmp_path, {"init": "admin", "multipliers": {}, "figures": {}})
    assert read_start(tmp_path, "admin") is not None
    with pytest.raises(ValueError, match=r"start.json is the start of model.init = 'admin', this run has 'gradinit'"):
        read_start(tmp_path, "gradinit")


def test_the_page_says_it(alone: tuple[str, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init, run, _ = alone
    for drawn in ("_pictures", "_by_frequency", "_memory"):  # which takes longest, and is not what is asked here
        monkeypatch.setattr(run_page, drawn, lambda *runs: [])
    page = run_page.write_report(run, out=tmp_path / "page.html").read_text(encoding="utf-8")
    assert {"admin": "Admin: ω of 4 shortcuts", "gradinit": "GradInit: "}[init] in page
