"""`pretrain --dry-run`: every check that can be made without training, and the arithmetic of the run."""

from pathlib import Path
from typing import Any

from pipeline.checkpoint.retention import surplus
from pipeline.config.batch import batch_arithmetic
from pipeline.config.ds_config import load_ds_config, precision
from pipeline.config.schema import RunConfig, TrainConfig
from pipeline.data.pretraining import heldout_data, training_data
from pipeline.memory.fits import check_fits, check_peak
from pipeline.memory.predict import NotPredicted, predict
from pipeline.memory.states import MOMENTS_OF_RULE, bytes_per_rank, groups_of, parameters_of_rule
from pipeline.memory.system import FP32_BYTES, System
from pipeline.run.directory import check_run, run_file
from pipeline.run.started_from import check_weights, first_weights, flat_record
from preprocessing.corpus.reader import Verify, open_corpus


def dry_run(
    config: RunConfig,
    recipe: str,
    data_dir: Path,
    run_dir: Path | None,
    world_size: int,
    verify: Verify = "hashes",
    device: tuple[int, str] | None = None,
    start_from: Path | None = None,
) -> dict[str, Any]:
    """The figures of the run on `world_size` ranks, in a run directory that it fits to (None: in a new one); ValueError for
    anything that would stop it. Allocates no weights. `verify`: how well the corpus' files are looked at; `device`:
    bytes that each rank has, and of what, if that is known; `start_from`: whose weights a new run begins with."""
    batch = batch_arithmetic(config.batch, world_size)
    mechanics = load_ds_config(config.train.ds_config)
    corpus = open_corpus(data_dir, verify)
    weights = first_weights(run_dir, start_from)
    if weights is not None:
        check_weights(weights, config, corpus)
    if run_dir is not None:
        check_run(run_dir, run_file(config, recipe, corpus, None if weights is None else weights.record))
    data, train = config.data, config.train
    samples = training_data(corpus, config)
    system = System(recipe, config, corpus.vocab_size, world_size)
    if device is not None:
        check_fits(system, *device)
    predicted = _predicted_peak(system)
    if device is not None and predicted is not None:
        check_peak(predicted, *device)
    of_rule = parameters_of_rule(groups_of(config, corpus.vocab_size))
    memory = bytes_per_rank(of_rule, system)
    return {
        "recipe": recipe,
        **({} if weights is None else flat_record(weights.record)),
        "parameters": sum(of_rule.values()),
        **{f"parameters_{rule}": count for rule, count in of_rule.items()},
        "vocab_size": corpus.vocab_size,
        "world_size": world_size,
        "zero_stage": mechanics["zero_optimization"]["stage"],
        "precision": precision(mechanics),
        "global_sequences": batch.global_sequences,
        "micro_sequences": batch.micro_sequences,
        "accumulation_steps": batch.accumulation_steps,
        "seq_len": data.seq_len,
        "predictions_per_sequence": samples.n_predictions,
        "steps": train.steps,
        "tokens": train.steps * batch.global_sequences * data.seq_len,
        "corpus_tokens": corpus.manifest.tokens("train"),
        "epochs": train.steps * batch.global_sequences / samples.n_samples,
        "train_shards": len(corpus.shards("train")),
        "heldout_sequences": heldout_data(corpus, config).n_samples,
        **{f"{kind}_bytes_per_rank": count for kind, count in memory.items()},
        "predicted_peak_bytes_per_rank": predicted,
        **_checkpoint_figures(of_rule, config.train, world_size if mechanics["zero_optimization"]["stage"] else 1),
    }


def _predicted_peak(system: System) -> int | None:
    try:
        return predict(system).largest
    except NotPredicted:
        return None


def sizes(config: RunConfig, vocab_size: int, world_size: int) -> dict[str, Any]:
    """Those figures of `dry_run` that a run on a corpus which is yet to be built has, too: parameters, tokens, bytes."""
    batch = batch_arithmetic(config.batch, world_size)
    mechanics = load_ds_config(config.train.ds_config)
    of_rule = parameters_of_rule(groups_of(config, vocab_size))
    return {
        "parameters": sum(of_rule.values()),
        "steps": config.train.steps,
        "tokens": config.train.steps * batch.global_sequences * config.data.seq_len,
        **_checkpoint_figures(of_rule, config.train, world_size if mechanics["zero_optimization"]["stage"] else 1),
    }


def _checkpoint_figures(of_rule: dict[str, int], train: TrainConfig, shards: int) -> dict[str, int]:
    """Bytes of a checkpoint, of the copy in host memory that a rank makes of its part, and how many are kept at the end."""
    steps = {*range(train.checkpoint_every_steps, train.steps, train.checkpoint_every_steps), train.steps}
    size = FP32_BYTES * sum(n * (1 + MOMENTS_OF_RULE[rule]) for rule, n in of_rule.items())
    deleted = surplus(list(steps), train.keep_last_checkpoints, train.keep_every_steps)
    return {
        "checkpoint_bytes": size,
        "checkpoint_copy_bytes_per_rank": size // shards,
        "checkpoints_written": len(steps),
        "checkpoints_kept": len(steps) - len(deleted),
    }
