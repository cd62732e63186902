"""Pretraining, top to bottom: start, one step, the loop, the end."""

import contextlib
import time
from functools import partial
from typing import Any

import torch

from pipeline.checkpoint import probe
from pipeline.checkpoint.progress import Progress, manifest_of, restored
from pipeline.checkpoint.reader import Checkpoint
from pipeline.checkpoint.resume import newest
from pipeline.checkpoint.snapshot import WINDOW, owned_tensors, rng_states, set_rng_states
from pipeline.checkpoint.writer import Kept, Saved, Saver
from pipeline.config.batch import batch_arithmetic
from pipeline.config.ds_config import precision
from pipeline.data.batch import Batch, rank_indices
from pipeline.data.pretraining import PretrainingData
from pipeline.distributed.launch import World
from pipeline.distributed.ranks import Ranks
from pipeline.distributed.stop_signals import StopRequest
from pipeline.distributed.watchdog import Watch
from pipeline.engine import build as engine
from pipeline.engine import processes
from pipeline.init import initial_model as starting_model
from pipeline.model.build import build_model
from pipeline.model.pretraining import PretrainingModel, parameter_count, parameter_shapes
from pipeline.optim.groups import parameter_groups
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.schedules import lr_at
from pipeline.optim.statistics import NormStatistics
from pipeline.run.directory import check_same, run_file, versions
from pipeline.run.monitor import Monitor
from pipeline.run.records import Window, cosine_alarm, norm_record
from pipeline.run.summary import peak_memory_bytes, write_summary
from pipeline.train.evaluate import evaluate, heldout_data
from pipeline.train.job import Job
from preprocessing.corpus.reader import Corpus


class Training:
    """The state of a run in memory, and its loop."""

    def __init__(
        self,
        job: Job,
        corpus: Corpus,
        world: World,
        ranks: Ranks,
        ds_dictionary: dict[str, Any],
        device: torch.device,
        stop: StopRequest,
        watch: Watch,
    ) -> None:
        self.config, self.recipe, self.corpus, self.run_dir = job.config, job.recipe, corpus, job.run_dir
        self.world, self.ranks, self.device, self.stop, self.watch = world, ranks, device, stop, watch
        self.batch = batch_arithmetic(self.config.batch, world.size)
        self.precision = precision(ds_dictionary)
        self.zero_stage: int = ds_dictionary["zero_optimization"]["stage"]
        data, train = self.config.data, self.config.train
        self.data = PretrainingData(corpus, "train", data.objective, data.seq_len, data.mask_fraction, train.seed)
        self.heldout = heldout_data(corpus, self.config)
        self.made_from, self.versions = run_file(self.config, self.recipe, corpus), versions() if world.is_main else {}
        torch.manual_seed(train.seed + world.rank)
        found = newest(self.run_dir, self._say, ranks)
        model = ranks.together(partial(self._model, found))
        self.parameters, self.shapes = parameter_count(model), parameter_shapes(model)  # ZeRO 3 leaves the model empty
        self.optimizer = PretrainingOptimizer(parameter_groups(model, self.config))
        self.engine = engine.build_engine(model, self.optimizer, ds_dictionary, device, train.split_masters)
        self.statistics, self.window, self.step, self.attempt = NormStatistics(), Window.empty(device), 0, 1
        self.alarmed = False
        kept = Kept(train.keep_last_checkpoints, train.keep_every_steps)
        self.saver = Saver(self.run_dir, processes.side_ranks(), kept, progress=lambda: watch.beat("saving"))
        metrics_bytes = None if found is None else self._restore(found)
        self.monitor = ranks.on_main(partial(self._open_monitor, metrics_bytes))

    def _open_monitor(self, metrics_bytes: int | None) -> Monitor:
        return Monitor(self.run_dir, self.config.train.steps, self.attempt, first_step=self.step, position=metrics_bytes)

    def _model(self, found: Checkpoint | None) -> PretrainingModel:
        """With its weights on rank 0, from where the engine hands them to all."""
        if found is None:
            model = starting_model.initial_model(self.config, self.corpus, self.data, self.batch, self.device)
        else:
            check_same(found.manifest["made_from"], self.made_from, found.directory, "it is not this run's: move it away")
            model = build_model(self.config, self.corpus.vocab_size, self.corpus.unigram_counts("train"))
            found.check_covers(parameter_shapes(model))
            if self.world.is_main:
                found.load_parameters(model)
        if self.world.is_main:
            starting_model.check_invariance(model, self.config, self.corpus)
        return model

    def _restore(self, found: Checkpoint) -> int:
        """What is not in the model's weights; the size that metrics.jsonl had."""
        self.step, place = found.step, (self.world.rank, self.world.size)
        recomputed = (self._samples(), self._learning_rate(self.config.optim), engine.loss_scale(self.engine))
        progress = self.ranks.together(lambda: restored(found, *recomputed))
        self.ranks.together(lambda: found.load_fragments(self.optimizer))
        set_rng_states(found.rng_states(*place), self.device)
        self.optimizer.updates, self.attempt = progress.updates, progress.attempt + 1
        self.statistics = progress.norm_statistics()
        self.window = Window(found.window(*place).to(self.device), progress.window_time_s, progress.window_steps)
        loss = probe.loss(self.engine.module, probe.stored_batch(found))
        self.ranks.together(lambda: probe.check(found, loss, self.precision))
        self._say(
            f"going on from step {self.step} ({found.directory}, saved by {found.world_size} ranks under ZeRO "
            f"{found.manifest['zero_stage']}; the probe batch has its loss, {loss:.6g}, again)"
        )
        return progress.metrics_bytes

    def run(self) -> bool:
        """All remaining steps, with logging, evaluation and checkpoints at their rhythm, then the summary; see `pretrain`."""
        train = self.config.train
        if self.step == train.steps:
            self._say(f"{self.run_dir} has all its {train.steps} steps already")
        while self.step < train.steps:
            self._train_step()
            last, stop = self.step == train.steps, self.optimizer.last_decision.stop
            if self.step % train.log_every_steps == 0 or last:
                self._log()
            if self.step % train.eval_every_steps == 0 or last:
                self._evaluate(None if last else train.eval_sequences)
            if self.step % train.checkpoint_every_steps == 0 or last or stop:
                self._save(wait=last or stop)
            if stop and not last:
                return self._stopped()
            self._tell(self.saver.finished())
        self.ranks.on_main(self._finish)
        return True

    def _finish(self) -> None:
        if self.monitor:
            self.monitor.close()
        if not (self.run_dir / "summary.json").exists():
            write_summary(self.run_dir, self.config, self.recipe, self.corpus, self.parameters)

    def _stopped(self) -> bool:
        reasons = [reason for reason in self.ranks.gather(self.stop.reason) if reason]
        self._say(f"stopped after step {self.step} ({reasons[0]}) and saved: the same command goes on")
        self.ranks.on_main(lambda: self.monitor.close() if self.monitor else None)
        return False

    def _train_step(self) -> None:
        """One update from one global batch, whatever number of micro batches and ranks it takes."""
        began_s = time.perf_counter()
        self._set_learning_rates()
        next_step = self.step + 1
        self.optimizer.with_cosine = next_step % self.config.train.log_every_steps == 0 or next_step == self.config.train.steps
        self.optimizer.asks_to_stop = self.stop.reason is not None
        for micro_step in range(self.batch.accumulation_steps):
            batch = self._micro_batch(micro_step)
            self.watch.beat(f"step {next_step}")
            out = self.engine(batch)
            self.watch.beat(f"the backward pass of step {next_step}")
            if self.saver.wants_probe:  # these are still the saved weights
                self.saver.give_probe(probe.as_tensors(probe.rows(batch)), probe.loss_of_rows(batch, out))
            self.engine.backward(out.loss)
            self.engine.step()
            self.window.add(out.token_loss_N, batch.weights)
        self.step = next_step
        self.statistics.update(self.optimizer.last_decision)
        self._stop_if_not_finite()
        self.window.end_step(time.perf_counter() - began_s)

    def _micro_batch(self, micro_step: int) -> Batch:
        """This rank's part of the next global batch."""
        arithmetic = (self.world.rank, self.world.size, self.batch.global_sequences, self.batch.micro_sequences)
        return self.data.batch(rank_indices(self.step, micro_step, *arithmetic)).to(self.device)

    def _set_learning_rates(self) -> None:
        for group in self.optimizer.all_groups:
            group["lr"] = self._learning_rate(self.config.head_optim if group["rule"] == "lamb" else self.config.optim)

    def _learning_rate(self, settings: Any) -> float:
        """Of the next step."""
        return lr_at(self.step, settings.lr, settings.schedule, self.config.train.steps)

    def _samples(self) -> int:
        """Consumed so far, over all epochs and ranks."""
        return self.step * self.batch.global_sequences

    def _stop_if_not_finite(self) -> None:
        """Every rank decided the same from the same sums, so every rank stops here together."""
        if self.statistics.skipped_in_a_row >= self.config.train.max_nonfinite_steps:
            raise ValueError(
                f"non-finite norms in {self.statistics.skipped_in_a_row} steps in a row, up to step {self.step}: "
                "start another --run with a lower optim.lr or head_optim.lr"
            )

    def _log(self) -> None:
        window, self.window = self.window, Window.empty(self.device)
        loss_sum, count = processes.sum_over_ranks(window.loss).tolist()
        tokens = self.batch.global_sequences * self.config.data.seq_len
        record = {
            "kind": "train",
            "step": self.step,
            "attempt": self.attempt,
            "loss": loss_sum / count if count else None,
            **norm_record(self.config, self.optimizer, self.statistics),
            "tokens": self.step * tokens,
            "tokens_per_s": window.steps * tokens / window.time_s,
            "memory_bytes": peak_memory_bytes(),
            "world_size": self.world.size,
            "time_s": window.time_s,
        }
        if self.monitor:
            self._report(self.monitor, record)

    def _report(self, monitor: Monitor, record: dict[str, Any]) -> None:
        monitor.train(record)
        alarm = cosine_alarm(self.step, record["param_grad_cosine"], self.precision)
        if alarm and not self.alarmed:
            self.alarmed = True  # once in an attempt: the metrics hold the rest
            monitor.message(alarm)

    def _evaluate(self, sequences: int | None) -> None:
        model, world, beat = self.engine.module, self.world, partial(self.watch.beat, f"evaluation after step {self.step}")
        micro = self.batch.micro_sequences
        figures = evaluate(model, self.heldout, sequences, micro, world.rank, world.size, processes.sum_over_ranks, beat)
        entropy = self.corpus.manifest.heldout_unigram_entropy_nats
        if self.monitor:
            self.monitor.evaluate(
                {
                    "kind": "eval",
                    "step": self.step,
                    "attempt": self.attempt,
                    **figures,
                    "heldout_unigram_entropy_nats": entropy,
                }
            )

    def _save(self, wait: bool) -> None:
        """All ranks copy what they own; their writers go on beside the training, or the training waits for them."""
        tensors = {
            **owned_tensors(self.optimizer, self.world.rank),
            WINDOW: self.window.loss,
            **rng_states(self.device),
        }
        self._tell(self.saver.start(self.step, tensors, self._manifest()))
        if wait:
            rows = probe.rows(self._micro_batch(0))
            loss = probe.loss(self.engine.module, rows)
            if self.saver.wants_probe:
                self.saver.give_probe(probe.as_tensors(rows), torch.tensor(loss))
            self._insist(self.saver.wait())

    def _manifest(self) -> dict[str, Any]:
        progress = Progress(
            samples=self._samples(),
            updates=self.optimizer.updates,
            attempt=self.attempt,
            lr=self._learning_rate(self.config.optim),
            loss_scale=engine.loss_scale(self.engine),
            metrics_bytes=self.monitor.position() if self.monitor else 0,
            window_time_s=self.window.time_s,
            window_steps=self.window.steps,
            statistics=self.statistics.state_dict(),
        )
        mechanics = {
            "world_size": self.world.size,
            "zero_stage": self.zero_stage,
            "precision": self.precision,
            "ds_config": self.config.train.ds_config,
            "versions": self.versions,
        }
        return manifest_of(progress, self.made_from, self.shapes, **mechanics)

    def _tell(self, saved: Saved | None) -> None:
        """A save that failed is an alarm: the run goes on, and the older checkpoints stay."""
        if saved is not None and saved.problem is not None:
            self._say(f"ALARM: no checkpoint of step {saved.step}: {saved.problem}; older ones are whole, training goes on")
        elif saved is not None and saved.untidy is not None:
            self._say(f"ALARM: checkpoint of step {saved.step}: whole, but latest or old ones are as before: {saved.untidy}")

    def _insist(self, saved: Saved | None) -> None:
        """A save without which the run cannot end."""
        assert saved is not None
        problems = [problem for problem in self.ranks.gather(saved.problem) if problem is not None]
        if problems:
            raise ValueError(f"checkpoint at step {saved.step}: {problems[0]}; older ones are whole; mend that and start again")
        self._tell(saved)

    def _say(self, text: str) -> None:
        if self.world.is_main:
            with contextlib.suppress(OSError):  # a log on the disk that is full
                print(text, flush=True)
