"""`pretrain --dry-run`: every check that can be made without training, and the arithmetic of the run."""

from pathlib import Path
from typing import Any, Literal

from pipeline.checkpoint.retention import surplus
from pipeline.config.batch import batch_arithmetic
from pipeline.config.ds_config import load_ds_config, precision
from pipeline.config.schema import RunConfig, TrainConfig
from pipeline.data.pretraining import PretrainingData
from pipeline.memory.fits import check_fits, check_peak
from pipeline.memory.predict import MOMENTS_OF_RULE, NotPredicted, predict
from pipeline.memory.system import System, skeleton
from pipeline.optim.groups import parameter_groups
from pipeline.run.directory import check_run, run_file
from pipeline.train.evaluate import heldout_data
from preprocessing.corpus.reader import open_corpus

FP32_BYTES, BF16_BYTES = 4, 2


def dry_run(
    config: RunConfig,
    recipe: str,
    data_dir: Path,
    run_dir: Path | None,
    world_size: int,
    verify: Literal["sizes", "hashes"] = "hashes",
    device: tuple[int, str] | None = None,
) -> dict[str, Any]:
    """The figures of the run on `world_size` ranks, in a run directory that it fits to (None: in a new one); ValueError for
    anything that would stop it. Allocates no weights. `verify`: how well the corpus' files are looked at; `device`:
    bytes that each rank has, and of what, if that is known."""
    batch = batch_arithmetic(config.batch, world_size)
    mechanics = load_ds_config(config.train.ds_config)
    corpus = open_corpus(data_dir, verify)
    if run_dir is not None:
        check_run(run_dir, run_file(config, recipe, corpus))
    data, train = config.data, config.train
    samples = PretrainingData(corpus, "train", data.objective, data.seq_len, data.mask_fraction, train.seed)
    system = System(recipe, config, corpus.vocab_size, world_size)
    if device is not None:
        check_fits(system, *device)
    predicted = _predicted_peak(system)
    if device is not None and predicted is not None:
        check_peak(predicted, *device)
    of_rule = _parameters_of_rule(config, corpus.vocab_size)
    memory = bytes_per_rank(of_rule, system)
    return {
        "recipe": recipe,
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
    of_rule = _parameters_of_rule(config, vocab_size)
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


def _parameters_of_rule(config: RunConfig, vocab_size: int) -> dict[str, int]:
    """How many scalars SGD, LAMB and AdamW train; the model is built without storage."""
    groups = parameter_groups(skeleton(config, vocab_size), config)
    return {rule: sum(p.numel() for g in groups if g["rule"] == rule for p in g["params"]) for rule in MOMENTS_OF_RULE}


def bytes_per_rank(parameters_of_rule: dict[str, int], system: System) -> dict[str, int]:
    """Model states of one rank between steps, activations not counted: the weights that the forward pass reads with their
    masters, the gradient that is kept, LAMB's and AdamW's moments; with offloading what moves to the `host`, under stage 3 the
    gradient too, under stages 1 and 2 a second one while micro batches are accumulated."""
    total, stage = sum(parameters_of_rule.values()), system.stage
    low = BF16_BYTES if system.precision == "bf16" else FP32_BYTES
    share = system.world_size if stage else 1
    masters = 0 if stage == 0 and low == FP32_BYTES else system.master_bytes * total // share
    moments = FP32_BYTES * sum(n * MOMENTS_OF_RULE[rule] for rule, n in parameters_of_rule.items()) // share
    weights = low * total // (share if stage == 3 else 1)
    gradient = low * total // (share if stage >= 2 else 1)
    if "offload_optimizer" in system.zero:
        host = masters + FP32_BYTES * total // share + moments
        if stage == 3:
            return {"weights": weights, "gradient": 0, "host": host + gradient}
        return {"weights": weights, "gradient": gradient, "host": host + (low * total // share if system.accumulates else 0)}
    return {"weights": weights + masters, "gradient": gradient, "optimizer": moments}
