"""A training of an experiment: the start that `pretrain` makes, and what is kept of it."""

from pathlib import Path

import pytest
import torch

from pipeline.config.load import changed, load_recipe
from pipeline.experiments.text import corpus_of
from pipeline.experiments.trial import Trial, batches_of, outcome_of, starting_model
from pipeline.init.initial_model import initial_model
from pipeline.model.pretraining import PretrainingModel
from preprocessing.corpus.reader import Corpus, open_corpus

SMALL = (
    *("model.layers=1", "model.width=16", "model.heads=2", "model.ffn_width=32", "data.seq_len=16", "train.steps=2"),
    *("batch.global_sequences=4", "batch.micro_sequences=2", "train.log_every_steps=1", "train.eval_sequences=4"),
)
CONFIG = load_recipe("tiny", SMALL)


@pytest.fixture(scope="module")
def opened(corpus: Path) -> Corpus:
    return open_corpus(corpus)


def start(trial: Trial, opened: Corpus) -> PretrainingModel:
    device = torch.device("cpu")
    return starting_model(trial, opened, device, batches_of(opened, trial.config, device), lambda model: None)


@pytest.mark.parametrize("recipe", ["tiny", "tiny-untied", "tiny-bert"])
def test_it_starts_in_the_directions_of_a_run(recipe: str, opened: Corpus) -> None:
    """Balanced or not: balancing changes lengths alone."""
    config = load_recipe(recipe, [*SMALL, "optim.schedule.warmup_steps=0"])
    wanted = dict(initial_model(config, opened, torch.device("cpu")).named_parameters())
    for name, tensor in start(Trial("", config), opened).named_parameters():
        if config.model.init != "balanced":
            assert torch.equal(tensor, wanted[name]), name
        elif wanted[name].norm() > 0:
            torch.testing.assert_close(tensor / tensor.norm(), wanted[name] / wanted[name].norm(), rtol=1e-4, atol=1e-6)


def test_a_balanced_start_follows_the_loss_and_not_the_weights(opened: Corpus) -> None:
    """The equilibrium norm is as the root of the gradient's; a loss times 100 has norms times 10."""
    plain, scaled = start(Trial("", CONFIG), opened), start(Trial("", CONFIG, loss_scale=100.0), opened)
    wide = start(Trial("", changed(CONFIG, {"model.init_std": 2.0})), opened)
    for one, other, same in zip(plain.parameters(), scaled.parameters(), wide.parameters(), strict=True):
        torch.testing.assert_close(other, 10 * one, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(same, one, rtol=1e-4, atol=1e-6)


def test_the_start_is_scaled_where_it_is_scale_invariant(opened: Corpus) -> None:
    plain, scaled = start(Trial("", CONFIG), opened), start(Trial("", CONFIG, start_scale=3.0), opened)
    for one, other in zip(plain.parameters(), scaled.parameters(), strict=True):
        assert torch.equal(other, 3 * one)


def test_a_finished_trial_is_read_and_one_with_other_settings_is_trained(
    opened: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = outcome_of(Trial("one", CONFIG), opened, tmp_path)
    assert [record["step"] for record in first.steps] == [1, 2]
    assert "one: held-out loss" in capsys.readouterr().out
    assert outcome_of(Trial("one", CONFIG), opened, tmp_path) == first
    assert capsys.readouterr().out == ""
    again = outcome_of(Trial("one", changed(CONFIG, {"train.seed": 1})), opened, tmp_path)
    assert "one: held-out loss" in capsys.readouterr().out
    assert again.heldout_loss != first.heldout_loss


def test_a_training_that_breaks_has_no_loss(opened: Corpus, tmp_path: Path) -> None:
    config = changed(CONFIG, {"train.steps": 6})
    outcome = outcome_of(Trial("broken", config, loss_scale=1e300), opened, tmp_path)
    assert outcome.heldout_loss == float("inf")
    assert outcome.problem is not None
    assert "non-finite norms in 5 steps in a row" in outcome.problem


@pytest.mark.long
def test_without_a_corpus_python_s_own_texts_are_built(tmp_path: Path) -> None:
    built = corpus_of(None, tmp_path)
    assert (tmp_path / "corpus" / "manifest.json").is_file()
    assert corpus_of(None, tmp_path).manifest_sha256 == built.manifest_sha256
