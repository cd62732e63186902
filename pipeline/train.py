"""Pretraining, top to bottom: start, one step, the loop, the end."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline import checkpoint, engine
from pipeline.config import BatchArithmetic, RunConfig, batch_arithmetic
from pipeline.data import PretrainingData, rank_indices
from pipeline.ds_config import deepspeed_dictionary, load_ds_config, precision
from pipeline.evaluate import evaluate, heldout_data
from pipeline.json_file import write_object
from pipeline.launch import World
from pipeline.model import initialise
from pipeline.model.invariance import probe_inputs, quick_check
from pipeline.model.pretraining import PretrainingModel, build_model, on_device, parameter_count
from pipeline.monitor import Monitor
from pipeline.optim.optimizer import PretrainingOptimizer, parameter_groups
from pipeline.optim.schedules import lr_at
from pipeline.optim.statistics import NormStatistics
from pipeline.run_directory import open_run, run_file, versions
from pipeline.summary import peak_memory_bytes, write_summary
from preprocessing.shards import Corpus, open_corpus


def pretrain(config: RunConfig, recipe: str, data_dir: Path, run_dir: Path, world: World) -> None:
    """Train the recipe on the corpus until its last step, going on from the newest checkpoint if there is one.

    Called by every process of the world. Raises ValueError, on every rank alike, for anything the user has to change; a
    RankError for what concerns one process alone (a GPU that is not there).
    """
    batch = batch_arithmetic(config.batch, world.size)
    ds_dictionary = deepspeed_dictionary(load_ds_config(config.train.ds_config), batch)
    device = engine.start_processes(world)
    corpus = _checked_start(config, recipe, data_dir, run_dir, ds_dictionary, world)
    Training(config, recipe, corpus, run_dir, world, batch, ds_dictionary, device).run()


def _checked_start(
    config: RunConfig, recipe: str, data_dir: Path, run_dir: Path, ds_dictionary: dict[str, Any], world: World
) -> Corpus:
    """Rank 0 checks the corpus' hashes and the run directory for all, then every rank opens the corpus."""

    def check() -> None:
        if world.is_main:
            open_run(run_dir, run_file(config, recipe, open_corpus(data_dir)))
            if not (run_dir / "summary.json").exists():  # a finished run keeps what it was made with
                write_object(run_dir / "ds_config.json", ds_dictionary)
                write_object(run_dir / "versions.json", versions())

    engine.together(check)
    return engine.together(lambda: open_corpus(data_dir, verify="sizes"))


# |<x, g>|/(||x||·||g||) of a scale invariant model is rounding alone: above this it is not that any more.
LARGEST_COSINE = {"fp32": 1e-5, "bf16": 1e-2}


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
        self.precision = precision(ds_dictionary)
        data = config.data
        self.data = PretrainingData(corpus, "train", data.objective, data.seq_len, data.mask_fraction, config.train.seed)
        self.heldout = heldout_data(corpus, config)
        found = engine.together(lambda: checkpoint.newest(run_dir, complain=self._say))
        model = engine.together(lambda: self._initial_model() if found is None else self._stored_model(found))
        engine.together(partial(self._check_invariance, model))
        self.parameters = parameter_count(model)  # ZeRO 3 leaves the model empty between its uses
        self.optimizer = PretrainingOptimizer(parameter_groups(model, config))
        self.engine = engine.build_engine(model, self.optimizer, ds_dictionary, device)
        self.statistics, self.step, self.attempt, self.alarmed = NormStatistics(), 0, 1, False
        if found is not None:
            self._restore(found)
        self.monitor = engine.together(self._open_monitor)
        self._reset_window()

    def _open_monitor(self) -> Monitor | None:
        if not self.world.is_main:
            return None
        return Monitor(self.run_dir, self.config.train.steps, self.attempt, first_step=self.step)

    def _empty_model(self) -> PretrainingModel:
        nsp = self.config.data.objective == "mlm+nsp"
        return build_model(self.config.model, self.corpus.vocab_size, nsp, self.corpus.unigram_counts("train"))

    def _stored_model(self, found: checkpoint.Checkpoint) -> PretrainingModel:
        model = self._empty_model()
        found.load_parameters(model)
        return model

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

    def _check_invariance(self, model: PretrainingModel) -> None:
        """ValueError if what SGD is going to train is not scale invariant. The weights are every rank's alike: rank 0 looks."""
        if not (self.world.is_main and model.scale_invariant_names()):
            return
        nsp, seq_len = self.config.data.objective == "mlm+nsp", min(16, self.config.data.seq_len)
        inputs = probe_inputs(self.corpus.vocab_size, self.config.model.max_seq_len, nsp, 3, seq_len, self.config.train.seed)
        problems = quick_check(model, tuple(t if t is None else t.to(on_device(model)) for t in inputs))
        if problems:
            more = f" (and {len(problems) - 1} more: `python -m pipeline invariance`)" if problems[1:] else ""
            raise ValueError(f"the model is not scale invariant: {problems[0]}{more}")

    def _backward_first_batch(self, model: PretrainingModel) -> None:
        """Gradients of the first global batch, all of it on this rank, without an engine."""
        parts = self.batch.accumulation_steps * self.batch.world_size
        for part in range(parts):
            indices = rank_indices(0, part, 0, 1, self.batch.global_sequences, self.batch.micro_sequences)
            batch = self.data.batch(indices).to(self.device)
            (model(*batch.model_inputs()).loss / parts).backward()

    def _restore(self, found: checkpoint.Checkpoint) -> None:
        engine.together(lambda: found.load_fragments(self.optimizer))
        self.step, self.attempt = found.step, found.state["attempt"] + 1
        self.optimizer.updates = found.state["updates"]
        self.statistics = NormStatistics(**found.state["statistics"])
        self._say(f"going on from step {self.step} ({found.directory})")

    def run(self) -> None:
        """All remaining steps, with logging, evaluation and checkpoints at their rhythm, then the summary."""
        train = self.config.train
        if self.step == train.steps:
            self._say(f"{self.run_dir} has all its {train.steps} steps already")
        while self.step < train.steps:
            self._train_step()
            last = self.step == train.steps
            if self._is_logged(self.step):
                self._log()
            if self.step % train.eval_every_steps == 0 or last:
                self._evaluate(None if last else train.eval_sequences)
            if self._is_saved(self.step):
                self._save()
        engine.together(self._finish)

    def _is_saved(self, step: int) -> bool:
        return step % self.config.train.checkpoint_every_steps == 0 or step == self.config.train.steps

    def _is_logged(self, step: int) -> bool:
        """Where it is saved, too: a resumed run starts with an empty logging window."""
        return step % self.config.train.log_every_steps == 0 or self._is_saved(step)

    def _finish(self) -> None:
        if self.monitor:
            self.monitor.close()
            if not (self.run_dir / "summary.json").exists():
                write_summary(self.run_dir, self.config, self.recipe, self.corpus, self.parameters)

    def _train_step(self) -> None:
        """One update from one global batch, whatever number of micro batches and ranks it takes."""
        began_s = time.perf_counter()
        self._set_learning_rates()
        self.optimizer.with_cosine = self._is_logged(self.step + 1)
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
                "start another --run with a lower optim.lr or head_optim.lr"
            )

    def _log(self) -> None:
        loss_sum, count = engine.sum_over_ranks(self.window_loss).tolist()
        tokens = self.batch.global_sequences * self.config.data.seq_len
        record = {
            "kind": "train",
            "step": self.step,
            "attempt": self.attempt,
            "loss": loss_sum / count if count else None,
            **self._norm_record(),
            "tokens": self.step * tokens,
            "tokens_per_s": self.window_steps * tokens / self.window_s,
            "memory_bytes": peak_memory_bytes(),
            "world_size": self.world.size,
            "time_s": self.window_s,
        }
        engine.together(lambda: self._report(record))
        self._reset_window()

    def _report(self, record: dict[str, Any]) -> None:
        if self.monitor is None:
            return
        self.monitor.train(record)
        cosine, largest = record["param_grad_cosine"], LARGEST_COSINE[self.precision]
        if cosine is not None and abs(cosine) > largest and not self.alarmed:
            self.alarmed = True  # once in an attempt: the metrics hold the rest
            self.monitor.message(
                f"ALARM at step {self.step}: <x, g>/(‖x‖·‖g‖) = {cosine:.1e}, beyond the rounding of {self.precision} "
                f"({largest:g}): the trained function is not scale invariant any more"
            )

    def _norm_record(self) -> dict[str, Any]:
        """What the last step decided, in the metrics' names."""
        groups, decision, statistics = self.optimizer.all_groups, self.optimizer.last_decision, self.statistics
        lr, weight_decay = groups[0]["lr"], self.config.optim.weight_decay
        relative = self.config.optim.rule == "sgd"
        return {
            "lr": lr,
            "head_lr": next((g["lr"] for g in groups if g["rule"] == "lamb"), None),
            "param_norm": decision.x_norm,
            "grad_norm": decision.g_norm,
            "param_grad_cosine": decision.cosine if self.config.model.encoder != "bert" else None,
            "clip_threshold": decision.threshold,
            "clip_coefficient": decision.coefficient,
            "clipped": decision.clipped,
            "clipped_fraction": statistics.clipped_fraction,
            "skipped": not decision.finite,
            "skipped_steps": statistics.skipped_steps,
            "effective_lr": lr / decision.x_norm**2 if relative and decision.x_norm else None,
            "equilibrium_norm": statistics.equilibrium(lr, weight_decay) if relative else None,
        }

    def _evaluate(self, sequences: int | None) -> None:
        model, world = self.engine.module, self.world
        micro = self.batch.micro_sequences
        figures = evaluate(model, self.heldout, sequences, micro, world.rank, world.size, engine.sum_over_ranks)
        entropy = self.corpus.manifest.heldout_unigram_entropy_nats
        record = {
            "kind": "eval",
            "step": self.step,
            "attempt": self.attempt,
            **figures,
            "heldout_unigram_entropy_nats": entropy,
        }
        engine.together(lambda: self.monitor.evaluate(record) if self.monitor else None)

    def _save(self) -> None:
        """All ranks write, rank 0 commits; a failure anywhere is every rank's error and leaves older checkpoints whole."""
        state = {
            "attempt": self.attempt,
            "updates": self.optimizer.updates,
            "statistics": self.statistics.state_dict(),
            "world_size": self.world.size,
            "ds_config": self.config.train.ds_config,
        }
        run_dir, step, world = self.run_dir, self.step, self.world
        try:
            engine.together(lambda: checkpoint.begin(run_dir, step) if world.is_main else None)
            info = engine.together(lambda: checkpoint.write_rank(run_dir, step, world.rank, world.size, self.optimizer))
            files = [file for file in engine.gather(info) if file is not None]
            engine.together(lambda: checkpoint.commit(run_dir, step, files, state) if world.is_main else None)
        except ValueError as error:
            if world.is_main:
                checkpoint.abandon(run_dir, step)
            raise ValueError(f"checkpoint at step {step}: {error}; older ones are whole: free space, start again") from error

    def _reset_window(self) -> None:
        self.window_loss = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.window_s, self.window_steps = 0.0, 0

    def _say(self, text: str) -> None:
        if self.world.is_main:
            print(text, flush=True)
