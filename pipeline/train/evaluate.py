"""Held-out loss: a fixed set of sequences with fixed masks, the same for every step, run and world size."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config.schema import RunConfig
from pipeline.data.pretraining import PretrainingData, heldout_data
from pipeline.distributed.ranks import Ranks
from pipeline.model.pretraining import PretrainingModel, on_device
from pipeline.run.trained import load_run, read_run_file
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
) -> dict[str, float] | None:
    """Mean loss in nats over the predictions of the first `sequences` held-out sequences of the fixed order (None: all).

    Returns heldout_loss, heldout_mask_loss (positions shown as [MASK] alone), heldout_sequences, and
    heldout_nsp_accuracy if the model has that head. Each rank takes its share; sums are global. `interrupted` is asked at
    every turn, equally often on every rank; where it says yes, on all of them, the evaluation is broken off: None.
    """
    total = data.n_samples if sequences is None else min(sequences, data.n_samples)
    device = on_device(model)
    sums = torch.zeros(6, dtype=torch.float64)  # token loss, count, [MASK] loss, [MASK] count, NSP right, NSP count
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
        if start >= total:
            continue
        assert batch.is_masked is not None
        token_loss_N, weights_N = out.token_loss_N.double(), batch.weights.flatten().double()
        masked_N = batch.is_masked.flatten().double() * weights_N
        parts = [token_loss_N.sum(), weights_N.sum(), (token_loss_N * masked_N).sum(), masked_N.sum()]
        sums[:4] += torch.stack(parts).cpu()
        if out.nsp_correct_B is not None:
            sums[4:] += torch.tensor([float(out.nsp_correct_B.sum()), float(len(out.nsp_correct_B))])
    model.train(was_training)
    loss, count, mask_loss, mask_count, nsp_right, nsp_count = sum_over_ranks(sums.to(device)).tolist()
    result = {
        "heldout_loss": loss / count if count else math.nan,
        "heldout_mask_loss": mask_loss / mask_count if mask_count else math.nan,
        "heldout_sequences": total,
    }
    if nsp_count:
        result["heldout_nsp_accuracy"] = nsp_right / nsp_count
    return result


def evaluation_in_training(
    model: PretrainingModel,
    corpus: Corpus,
    config: RunConfig,
    ranks: Ranks,
    sum_over_ranks: Callable[[Tensor], Tensor],
    beat: Callable[[str], None],
    asked_to_stop: Callable[[], bool],
) -> Callable[[int, bool], dict[str, float] | None]:
    """What a Trainer calls for its evaluations: (finished steps, is it the last one) -> figures, None if some rank was asked to
    stop meanwhile. The last one takes all held-out sequences. `beat` is called at every turn."""
    data, device = heldout_data(corpus, config), on_device(model)

    def evaluation(step: int, last: bool) -> dict[str, float] | None:
        def interrupted() -> bool:
            beat(f"evaluation after step {step}")
            return bool(sum_over_ranks(torch.tensor(float(asked_to_stop()), device=device)))

        sequences = None if last else config.train.eval_sequences
        micro = config.batch.micro_sequences
        figures = evaluate(model, data, sequences, micro, ranks.rank, ranks.size, sum_over_ranks, interrupted)
        if figures is None:
            return None
        return {**figures, "heldout_unigram_entropy_nats": corpus.manifest.heldout_unigram_entropy_nats}

    return evaluation


def evaluate_run(run_dir: Path, data_dir: Path | None = None, sequences: int | None = None) -> dict[str, Any]:
    """Held-out figures of a run's newest checkpoint, in one process; the unigram entropy beside them. On another corpus than
    the run's, of the same tokenizer, they say on which, and on which the run was trained."""
    config, corpus, model, step = load_run(run_dir, data_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    figures = evaluate(model.to(device), heldout_data(corpus, config), sequences, config.batch.micro_sequences)
    assert figures is not None, "nothing interrupts it here"
    trained_on = read_run_file(run_dir)
    other = corpus.manifest_sha256 != trained_on["corpus_sha256"]
    return {
        "step": step,
        **({"data": str(corpus.directory.resolve()), "trained_on": trained_on["data"]} if other else {}),
        **figures,
        "heldout_unigram_entropy_nats": corpus.manifest.heldout_unigram_entropy_nats,
        "heldout_unigram_cross_entropy_nats": corpus.manifest.heldout_unigram_cross_entropy_nats,
    }
