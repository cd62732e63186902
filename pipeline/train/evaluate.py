"""Held-out loss: a fixed set of sequences with fixed masks, the same for every step, run and world size."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config.schema import RunConfig
from pipeline.data.batch import Batch
from pipeline.data.pretraining import PretrainingData, heldout_data
from pipeline.distributed.ranks import Ranks
from pipeline.model.pretraining import PretrainingLoss, PretrainingModel, on_device
from pipeline.run.exported import is_exported
from pipeline.run.trained import load_run, read_run_file
from pipeline.train import token_frequency
from pipeline.train.token_frequency import FrequencyBins, frequency_bins
from preprocessing.corpus.reader import Corpus


@torch.no_grad()
def evaluate(
    model: PretrainingModel,
    data: PretrainingData,
    sequences: int | None,
    micro_sequences: int,
    rank: int = 0,
    world_size: int = 1,
    sum_over_ranks: Callable[[Tensor], Tensor] = lambda t: t,
    interrupted: Callable[[], bool] = lambda: False,
    bins: FrequencyBins | None = None,
) -> dict[str, Any] | None:
    """Mean loss in nats over the predictions of the first `sequences` held-out sequences of the fixed order (None: all).

    Returns heldout_loss, heldout_mask_loss (positions shown as [MASK] alone), heldout_visible_loss (the others),
    heldout_sequences, heldout_nsp_accuracy if the model has that head, and heldout_by_frequency if `bins` are given. Each rank
    takes its share; sums are global. `interrupted` is asked at every turn, equally often on every rank; where it says yes, on
    all of them, the evaluation is broken off: None.
    """
    total = data.n_samples if sequences is None else min(sequences, data.n_samples)
    device = on_device(model)
    sums = torch.zeros(6 + (bins.n_sums if bins else 0), dtype=torch.float64)
    was_training = model.training
    model.eval()
    stride = world_size * micro_sequences
    for first in range(0, total, stride):  # the same number of turns on every rank: ZeRO 3 gathers weights in each
        if interrupted():
            model.train(was_training)
            return None
        start = first + rank * micro_sequences
        batch = data.batch(np.arange(start, min(start + micro_sequences, total)) if start < total else np.arange(1)).to(device)
        out = model(batch)
        if start < total:
            sums += _sums(batch, out, bins)
    model.train(was_training)
    return _figures(sum_over_ranks(sums.to(device)).cpu(), total, bins)


def _sums(batch: Batch, out: PretrainingLoss, bins: FrequencyBins | None) -> Tensor:
    """Float64 on the CPU: token loss, count, [MASK] loss, [MASK] count, NSP right, NSP count; then those of the bins."""
    assert batch.is_masked is not None
    token_loss_N, weights_N = out.token_loss_N.double(), batch.weights.flatten().double()
    masked_N = batch.is_masked.flatten().double() * weights_N
    parts = torch.stack([token_loss_N.sum(), weights_N.sum(), (token_loss_N * masked_N).sum(), masked_N.sum()]).cpu()
    nsp = [0.0, 0.0] if out.nsp_correct_B is None else [float(out.nsp_correct_B.sum()), float(len(out.nsp_correct_B))]
    by_frequency = [] if bins is None else [token_frequency.sums(bins, batch, out.token_loss_N)]
    return torch.cat([parts, torch.tensor(nsp, dtype=torch.float64), *by_frequency])


def _figures(sums: Tensor, sequences: int, bins: FrequencyBins | None) -> dict[str, Any]:
    loss, count, mask_loss, mask_count, nsp_right, nsp_count = sums[:6].tolist()
    visible = count - mask_count
    result: dict[str, Any] = {
        "heldout_loss": loss / count if count else math.nan,
        "heldout_mask_loss": mask_loss / mask_count if mask_count else math.nan,
        "heldout_visible_loss": (loss - mask_loss) / visible if visible else math.nan,
        "heldout_sequences": sequences,
    }
    if nsp_count:
        result["heldout_nsp_accuracy"] = nsp_right / nsp_count
    if bins:
        result["heldout_by_frequency"] = token_frequency.table(bins, sums[6:])
    return result


def asked_anywhere(
    beat: Callable[[str], None],
    doing: str,
    asked_to_stop: Callable[[], bool],
    device: torch.device,
    sum_over_ranks: Callable[[Tensor], Tensor],
) -> bool:
    """Between two batches of an evaluation: this rank lives, and was any rank asked to stop? The same on all; a collective."""
    beat(doing)
    return bool(sum_over_ranks(torch.tensor(float(asked_to_stop()), device=device)))


def evaluation_in_training(
    model: PretrainingModel,
    corpus: Corpus,
    config: RunConfig,
    ranks: Ranks,
    sum_over_ranks: Callable[[Tensor], Tensor],
    beat: Callable[[str], None],
    asked_to_stop: Callable[[], bool],
) -> Callable[[int, bool], dict[str, Any] | None]:
    """What a Trainer calls for its evaluations: (finished steps, is it the last one) -> figures, None if some rank was asked to
    stop meanwhile. The last one takes all held-out sequences, and has the loss by token frequency, too. `beat` is called at
    every turn."""
    data, device = heldout_data(corpus, config), on_device(model)
    bins = frequency_bins(corpus.unigram_counts("train"))

    def evaluation(step: int, last: bool) -> dict[str, Any] | None:
        interrupted = partial(asked_anywhere, beat, f"evaluation after step {step}", asked_to_stop, device, sum_over_ranks)
        sequences = None if last else config.train.eval_sequences
        micro = config.batch.micro_sequences
        of_last = bins if last else None
        figures = evaluate(model, data, sequences, micro, ranks.rank, ranks.size, sum_over_ranks, interrupted, of_last)
        if figures is None:
            return None
        return {**figures, "heldout_unigram_entropy_nats": corpus.manifest.heldout_unigram_entropy_nats}

    return evaluation


def evaluate_run(run_dir: Path, data_dir: Path | None = None, sequences: int | None = None) -> dict[str, Any]:
    """Held-out figures of a run's newest checkpoint, in one process; the unigram entropy beside them. On another corpus than
    the run's, of the same tokenizer, they say on which, and on which the run was trained."""
    config, corpus, model, step = load_run(run_dir, data_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data, bins = heldout_data(corpus, config), frequency_bins(corpus.unigram_counts("train"))
    figures = evaluate(model.to(device), data, sequences, config.batch.micro_sequences, bins=bins)
    assert figures is not None, "nothing interrupts it here"
    trained_on = None if is_exported(run_dir) else read_run_file(run_dir)
    other = trained_on is not None and corpus.manifest_sha256 != trained_on["corpus_sha256"]
    return {
        "step": step,
        **({"data": str(corpus.directory.resolve()), "trained_on": trained_on["data"]} if trained_on and other else {}),
        **figures,
        "heldout_unigram_entropy_nats": corpus.manifest.heldout_unigram_entropy_nats,
        "heldout_unigram_cross_entropy_nats": corpus.manifest.heldout_unigram_cross_entropy_nats,
    }
