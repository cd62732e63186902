"""Pretraining, top to bottom: start, one step, the loop, the end."""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline import checkpoint, engine
from pipeline.config import BatchArithmetic, RunConfig, batch_arithmetic
from pipeline.data import PretrainingData, rank_indices
from pipeline.ds_config import deepspeed_dictionary, load_ds_config
from pipeline.evaluate import evaluate, heldout_data
from pipeline.launch import World
from pipeline.model import initialise
from pipeline.model.pretraining import PretrainingModel, build_model, parameter_count
from pipeline.monitor import Monitor
from pipeline.optim.optimizer import PretrainingOptimizer, parameter_groups
from pipeline.optim.schedules import lr_at
from pipeline.optim.statistics import NormStatistics
from pipeline.run_directory import open_run, run_file, versions, write_json
from pipeline.summary import peak_memory_bytes, write_summary
from preprocessing.shards import Corpus, open_corpus


def pretrain(config: RunConfig, recipe: str, data_dir: Path, run_dir: Path, world: World) -> None:
    """Train the recipe on the corpus until its last step, going on from the newest checkpoint if there is one.

    Called by every process of the world. Raises ValueError, on every rank alike, for anything the user has to change.
    """
    batch = batch_arithmetic(config.batch, world.size)
    ds_dictionary = deepspeed_dictionary(load_ds_config(config.train.ds_config), batch)
    device = engine.start_processes(world)
    try:
        corpus = _checked_start(config, recipe, data_dir, run_dir, ds_dictionary, world)
        Training(config, recipe, corpus, run_dir, world, batch, ds_dictionary, device).run()
    finally:
        engine.stop_processes()


def _checked_start(
    config: RunConfig, recipe: str, data_dir: Path, run_dir: Path, ds_dictionary: dict[str, Any], world: World
) -> Corpus:
    """Rank 0 checks the corpus' hashes and the run directory for all; a problem there is every rank's error."""
    problem = None
    if world.is_main:
        try:
            open_run(run_dir, run_file(config, recipe, open_corpus(data_dir)))
            write_json(run_dir / "ds_config.json", ds_dictionary)
            write_json(run_dir / "versions.json", versions())
        except (ValueError, OSError) as error:
            problem = str(error)
    engine.agree(problem)
    return open_corpus(data_dir, verify="sizes")


class Training:
    """The state of a run in memory, and its loop."""

    def __init__(
        self,
        config: RunConfig,
        recipe: str,
        corpus: Corpus,
        run_dir: Path,
        world: World,
        batch: BatchArithmetic,
        ds_dictionary: dict[str, Any],
        device: torch.device,
    ) -> None:
        self.config, self.recipe, self.corpus, self.run_dir = config, recipe, corpus, run_dir
        self.world, self.batch, self.device = world, batch, device
        data = config.data
        self.data = PretrainingData(corpus, "train", data.objective, data.seq_len, data.mask_fraction, config.train.seed)
        self.heldout = heldout_data(corpus, config)
        found = checkpoint.newest(run_dir, complain=self._say)
        model = self._initial_model() if found is None else self._empty_model()
        if found is not None:
            found.load_parameters(model)
        self.optimizer = PretrainingOptimizer(parameter_groups(model, config))
        self.engine = engine.build_engine(model, self.optimizer, ds_dictionary)
        self.statistics, self.step, self.attempt = NormStatistics(), 0, 1
        if found is not None:
            self._restore(found)
        self.monitor = Monitor(run_dir, config.train.steps, self.attempt, first_step=self.step) if world.is_main else None
        self._reset_window()

    def _empty_model(self) -> PretrainingModel:
        nsp = self.config.data.objective == "mlm+nsp"
        return build_model(self.config.model, self.corpus.vocab_size, nsp, self.corpus.unigram_counts("train"))

    def _initial_model(self) -> PretrainingModel:
        """Initialised alike on every rank: from the seed and, for a balanced start, the first global batch."""
        config = self.config
        model = self._empty_model()
        initialise.draw(model, config.model, config.train.seed)
        model.to(self.device)
        if config.model.init == "balanced":
            initialise.share_a_direction(model.mlm_head.decoder.weight, config.model.init_std, config.train.seed)
            backward = partial(self._backward_first_batch, model)
            initialise.balance(model, backward, config.optim.lr, config.optim.weight_decay)
        return model

    def _backward_first_batch(self, model: PretrainingModel) -> None:
        """Gradients of the first global batch, all of it on this rank, without an engine."""
        parts = self.batch.accumulation_steps * self.batch.world_size
        for part in range(parts):
            indices = rank_indices(0, part, 0, 1, self.batch.global_sequences, self.batch.micro_sequences)
            batch = self.data.batch(indices).to(self.device)
            (model(*batch.model_inputs()).loss / parts).backward()

    def _restore(self, found: checkpoint.Checkpoint) -> None:
        found.load_moments(self.optimizer)
        self.step, self.attempt = found.step, found.state["attempt"] + 1
        self.optimizer.updates = found.state["updates"]
        self.statistics = NormStatistics(**found.state["statistics"])
        self._say(f"going on from step {self.step} ({found.directory})")

    def run(self) -> None:
        """All remaining steps, with logging, evaluation and checkpoints at their rhythm, then the summary and the report."""
        train = self.config.train
        if self.step == train.steps:
            self._say(f"{self.run_dir} has all its {train.steps} steps already")
        while self.step < train.steps:
            self._train_step()
            last = self.step == train.steps
            saves = self.step % train.checkpoint_every_steps == 0 or last
            if self.step % train.log_every_steps == 0 or saves:  # a resumed run starts with an empty logging window
                self._log()
            if self.step % train.eval_every_steps == 0 or last:
                self._evaluate(None if last else train.eval_sequences)
            if saves:
                self._save()
        if self.monitor:
            self.monitor.close()
            if not (self.run_dir / "summary.json").exists():
                parameters = parameter_count(self.engine.module)
                write_summary(self.run_dir, self.config, self.recipe, self.corpus, parameters, self.world.size)
        engine.barrier()

    def _train_step(self) -> None:
        """One update from one global batch, whatever number of micro batches and ranks it takes."""
        began_s = time.perf_counter()
        self._set_learning_rates()
        for micro_step in range(self.batch.accumulation_steps):
            arithmetic = (self.world.rank, self.world.size, self.batch.global_sequences, self.batch.micro_sequences)
            batch = self.data.batch(rank_indices(self.step, micro_step, *arithmetic)).to(self.device)
            out = self.engine(*batch.model_inputs())
            self.engine.backward(out.loss)
            self.engine.step()
            self.window_loss += torch.stack([out.token_loss_N.sum(), batch.weights.sum()]).double()
        self.step += 1
        self.statistics.update(self.optimizer.last_decision)
        self._stop_if_not_finite()
        self.window_s += time.perf_counter() - began_s
        self.window_steps += 1

    def _set_learning_rates(self) -> None:
        config = self.config
        for group in self.optimizer.all_groups:
            settings = config.head_optim if group["rule"] == "lamb" else config.optim
            group["lr"] = lr_at(self.step, settings.lr, settings.schedule, config.train.steps)

    def _stop_if_not_finite(self) -> None:
        """Every rank decided the same from the same sums, so every rank stops here together."""
        if self.statistics.skipped_in_a_row >= self.config.train.max_nonfinite_steps:
            raise ValueError(
                f"non-finite norms in {self.statistics.skipped_in_a_row} steps in a row, up to step {self.step}: "
                "the last good weights are in the newest checkpoint; lower optim.lr or head_optim.lr"
            )

    def _log(self) -> None:
        loss_sum, count = engine.sum_over_ranks(self.window_loss).tolist()
        if self.monitor:
            tokens = self.batch.global_sequences * self.config.data.seq_len
            self.monitor.train(
                {
                    "kind": "train",
                    "step": self.step,
                    "attempt": self.attempt,
                    "loss": loss_sum / count,
                    **self._norm_record(),
                    "tokens": self.step * tokens,
                    "tokens_per_s": self.window_steps * tokens / self.window_s,
                    "memory_bytes": peak_memory_bytes(),
                    "time_s": self.window_s,
                }
            )
        self._reset_window()

    def _norm_record(self) -> dict[str, Any]:
        """What the last step decided, in the metrics' names."""
        groups, decision, statistics = self.optimizer.all_groups, self.optimizer.last_decision, self.statistics
        lr, first = groups[0]["lr"], decision.groups[0]
        relative = self.config.optim.rule == "sgd"
        x_norm, g_norm = (
            (first.x_norm, first.g_norm)
            if relative
            else (math.hypot(*(g.x_norm for g in decision.groups)), math.hypot(*(g.g_norm for g in decision.groups)))
        )
        return {
            "lr": lr,
            "head_lr": next((g["lr"] for g in groups if g["rule"] == "lamb"), None),
            "param_norm": x_norm,
            "grad_norm": g_norm,
            "clip_threshold": first.threshold,
            "clip_coefficient": first.coefficient,
            "clipped": decision.finite and first.coefficient < 1,
            "clipped_fraction": statistics.clipped_fraction,
            "skipped": not decision.finite,
            "skipped_steps": statistics.skipped_steps,
            "effective_lr": lr / x_norm**2 if relative and x_norm else None,
            "equilibrium_norm": statistics.equilibrium(lr, groups[0]["weight_decay"]) if relative else None,
        }

    def _evaluate(self, sequences: int | None) -> None:
        model, world = self.engine.module, self.world
        micro = self.batch.micro_sequences
        figures = evaluate(model, self.heldout, sequences, micro, world.rank, world.size, engine.sum_over_ranks)
        if self.monitor:
            self.monitor.evaluate({"kind": "eval", "step": self.step, "attempt": self.attempt, **figures})

    def _save(self) -> None:
        """All ranks write, rank 0 commits; a failure anywhere is every rank's error and leaves older checkpoints whole."""
        state = {
            "attempt": self.attempt,
            "updates": self.optimizer.updates,
            "statistics": self.statistics.state_dict(),
            "world_size": self.world.size,
            "ds_config": self.config.train.ds_config,
        }
        self._together(lambda: checkpoint.begin(self.run_dir, self.step) if self.world.is_main else None)
        info = self._together(
            lambda: checkpoint.write_rank(self.run_dir, self.step, self.world.rank, self.world.size, self.optimizer)
        )
        files = [f for f in engine.gather(info) if f is not None]
        self._together(lambda: checkpoint.commit(self.run_dir, self.step, files, state) if self.world.is_main else None)

    def _together(self, work: Callable[[], Any]) -> Any:
        """Do `work` on every rank and wait for all; an OSError on one is the same ValueError on all."""
        result, problem = None, None
        try:
            result = work()
        except OSError as error:
            problem = f"checkpoint at step {self.step}: {error}; older checkpoints are untouched, free space and start again"
        engine.agree(problem)
        return result

    def _reset_window(self) -> None:
        self.window_loss = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.window_s, self.window_steps = 0.0, 0

    def _say(self, text: str) -> None:
        if self.world.is_main:
            print(text, flush=True)
