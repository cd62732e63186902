"""What runs on two ranks under ZeRO is the recipe on paper: a float64 reference on the same data, in twenty lines."""

from pathlib import Path

import pytest
import torch
from running import SMALL, run_cli, set_options

from pipeline.checkpoint import PARAM, Checkpoint
from pipeline.config import RunConfig, load_recipe
from pipeline.data import PretrainingData, rank_indices
from pipeline.model.initialise import draw
from pipeline.model.pretraining import PretrainingModel, build_model
from pipeline.monitor import read_metrics
from pipeline.optim.schedules import lr_at
from preprocessing.shards import open_corpus

PAPER = set_options(
    model__encoder="sibert-a", model__head="paper", model__init="normal", optim__lr=0.3, optim__weight_decay=0.02
)
INVARIANT = set_options(model__init="normal", optim__lr=0.05, optim__weight_decay=0.1)
Norms = list[tuple[float, float, float]]


def reference(config: RunConfig, corpus_dir: Path, steps: int) -> tuple[PretrainingModel, Norms]:
    """`steps` updates of the whole global batch at once in float64: Algorithm 1 for the invariant part, LAMB for the rest."""
    corpus = open_corpus(corpus_dir)
    data = PretrainingData(
        corpus, "train", config.data.objective, config.data.seq_len, config.data.mask_fraction, config.train.seed
    )
    model = build_model(config.model, corpus.vocab_size, False, corpus.unigram_counts("train"))
    draw(model, config.model, config.train.seed)
    model.double()
    named, invariant = dict(model.named_parameters()), model.scale_invariant_names()
    moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in named.items() if n not in invariant}
    optim, head, norms = config.optim, config.head_optim, []
    for step in range(steps):
        batch = data.batch(rank_indices(step, 0, 0, 1, config.batch.global_sequences, config.batch.global_sequences))
        model.zero_grad()
        model(*batch.model_inputs()).loss.backward()
        with torch.no_grad():
            lr = lr_at(step, optim.lr, optim.schedule, config.train.steps)
            x = torch.cat([named[n].flatten() for n in invariant]).norm()
            g = torch.cat([named[n].grad.flatten() for n in invariant]).norm()
            threshold = (2 * optim.clip_c * optim.weight_decay / lr) ** 0.5 * x
            norms.append((x.item(), g.item(), threshold.item()))
            for name in invariant:
                p = named[name]
                p.copy_((1 - lr * optim.weight_decay) * p - lr * min(threshold / g, 1.0) * p.grad)
            for name, (m, v) in moments.items():
                p, grad = named[name], named[name].grad
                m.mul_(head.betas[0]).add_((1 - head.betas[0]) * grad)
                v.mul_(head.betas[1]).add_((1 - head.betas[1]) * grad**2)
                m_hat, v_hat = m / (1 - head.betas[0] ** (step + 1)), v / (1 - head.betas[1] ** (step + 1))
                r = m_hat / (v_hat.sqrt() + head.eps) + (head.weight_decay * p if p.ndim > 1 else 0)
                ratio = p.norm() / r.norm() if p.ndim > 1 else 1.0
                p.sub_(lr_at(step, head.lr, head.schedule, config.train.steps) * ratio * r)
    return model, norms


@pytest.mark.parametrize("options", [PAPER, INVARIANT], ids=["paper", "invariant"])
@pytest.mark.parametrize(("ranks", "stage"), [(2, "zero1"), (2, "zero2"), (1, "zero0")])
def test_two_ranks_are_the_reference(corpus: Path, tmp_path: Path, options: list[str], ranks: int, stage: str) -> None:
    settings = [*SMALL, *options, *set_options(train__ds_config=stage)]
    run = tmp_path / "run"
    done = run_cli("pipeline", "pretrain", "--recipe", "tiny", "--data", corpus, "--run-dir", run, *settings, ranks=ranks)
    assert done.returncode == 0, done.stderr
    config = load_recipe("tiny", settings[1::2])
    model, norms = reference(config, corpus, config.train.steps)
    stored = Checkpoint(run / "checkpoints" / "step-00000020")
    for name, parameter in model.named_parameters():
        ours = stored.read(PARAM, name, 0, parameter.numel()).view_as(parameter).double()
        assert (ours - parameter).norm() <= 1e-5 * parameter.norm(), name
    clips = set()
    for row, (x, g, threshold) in zip(read_metrics(run / "metrics.jsonl")[0], norms, strict=True):
        assert (row["param_norm"], row["grad_norm"], row["clip_threshold"]) == pytest.approx((x, g, threshold), rel=1e-5)
        assert row["clipped"] == (g > threshold)
        clips.add(row["clipped"])
    assert clips == {True, False}, "a run in which both kinds of step occur"
