"""The main job as a user runs it: ranks, stages, restarts, and what it leaves behind."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.load import from_dict
from pipeline.optim.schedules import lr_at
from pipeline.run.metrics_file import read_metrics
from preprocessing.corpus.reader import open_corpus
from tests.helpers.ranks import WITHOUT_REPORT, RankServer
from tests.helpers.running import PAPER_MODEL, ROOT, SMALL, refused, run_cli, set_options

Pretrain = Callable[..., subprocess.CompletedProcess[str]]
TIMES = {"tokens_per_s", "memory_bytes", "time_s", "attempt"}  # what two equal runs may differ in
# At tiny's rate of 0.32 an attention row may become nearly empty, and rounding of 1e-7 then grows to 1e-3 within a step.
FIFTY = [*SMALL, *set_options(train__steps=50, optim__lr=0.1)]


@pytest.fixture(scope="module")
def pretrain(rank_server: RankServer, corpus: Path) -> Pretrain:
    """`pretrain` on the built-in corpus, by ranks that start in a second."""

    def run_it(run: Path, *options: str, recipe: str = "tiny", ranks: int = 0) -> subprocess.CompletedProcess[str]:
        argv = ["pretrain", "--recipe", recipe, "--data", corpus, "--run", run, *options]
        return rank_server.run(argv, ranks, skip=WITHOUT_REPORT).completed()

    return run_it


def rows(run: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    train, evaluations = read_metrics(run / "metrics.jsonl")
    return [[{k: v for k, v in row.items() if k not in TIMES} for row in part] for part in (train, evaluations)]  # type: ignore[return-value]


@pytest.fixture(scope="module")
def two_ranks(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "two ranks"
    compiled = run.parent / "compiled"
    arguments = ("--recipe", "tiny", "--data", corpus, "--run-dir", run, *FIFTY)
    done = run_cli("pipeline", "pretrain", *arguments, ranks=2, TORCH_EXTENSIONS_DIR=str(compiled))
    assert done.returncode == 0, done.stdout + done.stderr
    assert not compiled.exists(), "no compiler is needed: DeepSpeed's shared-memory op must not be built"
    assert f"report       {run / 'report.html'}" in done.stdout
    return run


def test_a_run_leaves_everything_that_explains_it(two_ranks: Path, corpus: Path) -> None:
    summary = json.loads((two_ranks / "summary.json").read_text())
    train, evaluations = rows(two_ranks)
    assert summary["heldout_loss"] == evaluations[-1]["heldout_loss"]
    assert summary["final_train_loss"] == pytest.approx(sum(row["loss"] for row in train[-3:]) / 3)  # the last 5% of 50
    assert summary["clipped_fraction"] == pytest.approx(sum(row["clipped"] for row in train) / 50)
    assert summary["heldout_unigram_entropy_nats"] == open_corpus(corpus).manifest.heldout_unigram_entropy_nats
    assert summary["tokens"] == 50 * 16 * 32
    assert [row.get("heldout_by_frequency") for row in evaluations] == [None] * 4 + [summary["heldout_by_frequency"]]
    sentences = json.loads((two_ranks / "guesses.json").read_text())["sentences"]
    assert len(sentences) == 10
    assert summary["world_size"] == 2
    assert summary["versions"]["torch"]
    assert {p.name for p in (two_ranks / "checkpoints").iterdir()} >= {"latest", "step-00000010", "step-00000050"}
    assert len(list((two_ranks / "tensorboard").iterdir())) == 1
    assert json.loads((two_ranks / "ds_config.json").read_text())["gradient_clipping"] == 0.0
    page = (two_ranks / "report.html").read_text()
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert "Held-out loss by token frequency" in page
    assert page.count('class="guess') >= 50
    assert [row["step"] for row in train] == list(range(1, 51))
    assert [row["step"] for row in evaluations] == [10, 20, 30, 40, 50]


@pytest.mark.parametrize(
    ("ranks", "stage"),
    [
        (1, "zero1"),
        (2, "zero2"),
        (2, "zero3"),
        *(pytest.param(2, stage, marks=pytest.mark.long) for stage in ("zero0", "zero3-offload")),  # certify has them
    ],
)
def test_world_size_and_stage_do_not_change_the_losses(
    two_ranks: Path, pretrain: Pretrain, tmp_path: Path, ranks: int, stage: str
) -> None:
    done = pretrain(tmp_path / "run", *FIFTY, *set_options(train__ds_config=stage), ranks=ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    for ours, theirs in zip(rows(tmp_path / "run")[0], rows(two_ranks)[0], strict=True):
        for key in ("loss", "param_norm", "grad_norm", "clip_threshold"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4), (key, ours["step"])
    ours, theirs = (rows(run)[1][-1]["heldout_by_frequency"]["bins"] for run in (tmp_path / "run", two_ranks))
    assert len(ours) == len(theirs) == 10
    for our, their in zip(ours, theirs, strict=True):
        for shown in ("mask", "visible"):
            assert our.pop(shown) == pytest.approx(their[shown], rel=1e-4)
        assert our.items() < their.items()  # what is in the bin


def test_the_same_command_again_says_it_is_done_and_changes_nothing(two_ranks: Path, pretrain: Pretrain) -> None:
    def contents() -> dict[Path, bytes]:
        changing = ("report.html", ".lock")
        kept = (p for p in two_ranks.rglob("*") if p.is_file() and p.name not in changing and p.parent.name != "tensorboard")
        return {p: p.read_bytes() for p in kept}

    before = contents()
    again = pretrain(two_ranks, *FIFTY, ranks=1)
    assert again.returncode == 0, again.stderr
    assert "has all its 50 steps already" in again.stdout
    assert before == contents()


def test_evaluate_reproduces_the_final_held_out_loss_from_the_checkpoint(rank_server: RankServer, two_ranks: Path) -> None:
    done = rank_server.run(["evaluate", "--run", two_ranks, "--json"]).completed()
    assert done.returncode == 0, done.stderr
    figures, summary = json.loads(done.stdout), json.loads((two_ranks / "summary.json").read_text())
    assert figures["step"] == 50
    for key in ("heldout_loss", "heldout_mask_loss"):
        assert figures[key] == pytest.approx(summary[key], rel=1e-5)


def test_json_prints_the_figures_alone(two_ranks: Path, pretrain: Pretrain) -> None:
    done = pretrain(two_ranks, *FIFTY, "--json")  # finished by 2 ranks, read by 1
    assert json.loads(done.stdout) == json.loads((two_ranks / "summary.json").read_text())


def test_the_whole_recipe_with_pairs_and_the_paper_head_trains(pretrain: Pretrain, tmp_path: Path) -> None:
    """Without the log-unigram start, so that there is something to learn within 20 steps."""
    model = [*PAPER_MODEL, *set_options(model__unigram_bias="false")]
    options = set_options(data__objective="mlm+nsp", head_optim__lr=0.03, train__eval_sequences=256)
    done = pretrain(tmp_path / "run", *SMALL, *model, *options, ranks=2)
    assert done.returncode == 0, done.stderr
    train, evaluations = rows(tmp_path / "run")
    made_from = json.loads((tmp_path / "run" / "config.json").read_text())
    config = from_dict(made_from["config"], where="config.json")
    for row in train:
        at = (row["step"] - 1, config.optim.lr, config.optim.schedule, config.train.steps)
        assert row["lr"] == pytest.approx(lr_at(*at))  # the encoder's, not the head's
        assert row["effective_lr"] == pytest.approx(row["lr"] / row["param_norm"] ** 2)
        assert row["head_lr"] != row["lr"]
    assert 0 <= evaluations[-1]["heldout_nsp_accuracy"] <= 1
    assert evaluations[-1]["heldout_loss"] < evaluations[0]["heldout_loss"] < train[0]["loss"] - 0.05


@pytest.mark.parametrize("ranks", [0, 2])
def test_norms_that_stay_non_finite_end_the_run_with_an_error(pretrain: Pretrain, tmp_path: Path, ranks: int) -> None:
    options = set_options(optim__lr="1e30", optim__weight_decay="1e-40", optim__schedule__warmup_steps=0)
    done = pretrain(tmp_path / "run", *SMALL, *options, recipe="tiny-bert", ranks=ranks)
    refused(done, "non-finite norms in 5 steps in a row")
    train, _ = rows(tmp_path / "run")
    assert train[-1]["skipped"] is True
    assert train[-1]["clipped"] is False


def test_metrics_that_cannot_be_written_end_every_rank_with_one_line(pretrain: Pretrain, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert pretrain(run, *SMALL, *set_options(train__steps=2)).returncode == 0
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()
    (run / "summary.json").unlink()
    done = pretrain(run, *SMALL, *set_options(train__steps=2), ranks=2)
    refused(done, "metrics.jsonl")


@pytest.mark.long
def test_the_deepspeed_launcher_starts_the_same_program(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    launcher = [Path(sys.executable).parent / "deepspeed", "--num_gpus", "1", "--module", "pipeline", "pretrain"]
    arguments = ["--recipe", "tiny", "--data", corpus, "--run", run, *SMALL, *set_options(train__steps=2)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    command = [str(word) for word in (*launcher, *arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((run / "summary.json").read_text())["steps"] == 2
