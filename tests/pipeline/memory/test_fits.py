"""What fits is found, and what cannot fit is refused before anything is made."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config.load import changed
from pipeline.memory.fits import check_fits, largest_micro_batch, most_layers, with_micro
from pipeline.memory.predict import predict
from pipeline.memory.system import with_layers
from tests.helpers.ranks import RankServer
from tests.helpers.running import refused, run_cli
from tests.helpers.weighed_systems import SIBERT, system


def test_the_largest_micro_batch_is_the_largest() -> None:
    weighed = system(SIBERT, "zero1-bf16", 2, "batch.global_sequences=120")
    limit = predict(with_micro(weighed, 20)).largest
    assert largest_micro_batch(weighed, limit) == 20
    assert largest_micro_batch(weighed, limit - 1) == 15
    assert largest_micro_batch(weighed, 2**40) == 60
    assert largest_micro_batch(weighed, 2**20) == 0
    whole = predict(with_micro(weighed, 60)).largest
    assert largest_micro_batch(weighed, whole) == 60
    assert largest_micro_batch(replace(weighed, world_size=7), 2**40) == 0  # no micro batch divides it


def test_the_deepest_model_is_about_the_deepest() -> None:
    weighed = with_layers(system(SIBERT, "zero1-bf16"), 3)
    limit = predict(with_layers(weighed, 16)).largest
    assert most_layers(weighed, limit) == pytest.approx(16, rel=0.15)


def test_what_cannot_fit_is_refused_before_anything_is_traced() -> None:
    huge = with_layers(system(SIBERT, "zero3-bf16", 64), 100)
    wide = replace(huge, config=changed(huge.config, {"model.width": 2**16, "model.heads": 2**8}))
    with pytest.raises(ValueError, match=r"before any activation, and such a GPU has 80\.0 GiB"):
        check_fits(wide, 80 * 2**30, "such a GPU")
    check_fits(with_layers(huge, 2), 80 * 2**30, "such a GPU")


def test_more_layers_than_anybody_builds_are_refused_with_the_bound() -> None:
    absurd = with_layers(system(SIBERT, "zero3-bf16", 512), 10**9)
    for refusing in (lambda: predict(absurd), lambda: check_fits(absurd, 2**60, "such a GPU")):
        with pytest.raises(ValueError, match=r"model\.layers = 1,000,000,000: expected at most 1,000"):
            refusing()


def test_a_run_that_cannot_fit_is_refused_before_anything_is_there(
    rank_server: RankServer, little_corpus: Path, tmp_path: Path
) -> None:
    """The first of them in a process of its own: what its imports say would be lines more."""
    small = ["--recipe", "tiny", "--data", little_corpus, "--run", tmp_path / "run"]
    huge = [*small, "--set", "model.layers=100", "--set", "model.width=65536"]
    refused(run_cli("pipeline", "pretrain", *huge), "before any activation", "this machine has")
    refused(rank_server.run(["pretrain", *huge, "--dry-run"]).completed(), "before any activation", "this machine has")
    refused(rank_server.run(["pretrain", *small, "--dry-run", "--gpu-gib", "0.001"]).completed(), "such a GPU has 1.0 MiB")
    assert not os.path.lexists(tmp_path / "run")
