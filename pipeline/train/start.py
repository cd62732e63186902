"""The start of a run: processes, checks, then everything a training needs, built anew or from a checkpoint."""

import atexit
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from pipeline.checkpoint import probe
from pipeline.checkpoint.progress import Progress, restored
from pipeline.checkpoint.reader import Checkpoint
from pipeline.checkpoint.resume import newest
from pipeline.checkpoint.snapshot import set_rng_states
from pipeline.checkpoint.writer import Kept, Saver, make_place
from pipeline.config.ds_config import precision
from pipeline.config.schema import RunConfig
from pipeline.data.pretraining import PretrainingData, training_data
from pipeline.distributed.launch import World
from pipeline.distributed.ranks import Ranks
from pipeline.distributed.stop_signals import StopRequest
from pipeline.distributed.watchdog import Watchdog
from pipeline.engine.build import build_engine
from pipeline.engine.processes import side_ranks, sum_over_ranks
from pipeline.memory.fits import check_fits, device_memory
from pipeline.memory.system import System
from pipeline.model.pretraining import PretrainingModel, parameter_count, parameter_shapes
from pipeline.optim.groups import Model, parameter_groups
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.schedules import learning_rates
from pipeline.run.directory import check_run, open_run, run_file, versions
from pipeline.run.launch_record import launcher_of, record_launchers, was_begun_by
from pipeline.run.metrics_file import METRICS, has_evaluation
from pipeline.run.monitor import Monitor
from pipeline.run.started_from import Weights, check_weights, first_weights
from pipeline.run.summary import write_summary
from pipeline.train.agreement import check_agreement, plan_of
from pipeline.train.checkpoints import RunFacts, TrainingCheckpoints
from pipeline.train.evaluate import evaluation_in_training
from pipeline.train.measured_start import measured_start
from pipeline.train.micro_batches import Samples, micro_batches
from pipeline.train.place import Place, check_attention, check_directory, meet
from pipeline.train.run_log import RunLog, say
from pipeline.train.starting_model import lines_of, new_model, trained_model
from pipeline.train.state import LossWindow, TrainState
from pipeline.train.trainer import Figures, Trainer
from preprocessing.base.command_line import one_line
from preprocessing.base.json_file import write_object
from preprocessing.corpus.reader import Corpus, check_hashes, copy_of, open_corpus


@dataclass(frozen=True)
class Job:
    """What a start is given."""

    config: RunConfig
    recipe: str
    data_dir: Path
    run_dir: Path
    fresh: bool = False  # rename the run that is there and begin anew
    start_from: Path | None = None  # a run, or a checkpoint of one, whose weights a new run begins with


@dataclass(frozen=True)
class Begun:
    """What the checks at the start have found: the corpus, the run file (config.json and what checkpoints say they are made
    from), and the weights of another run, if this one begins with them and has no checkpoint of its own yet."""

    corpus: Corpus
    made_from: dict[str, Any]
    weights: Weights | None


def pretrain(job: Job, world: World) -> bool:
    """Train the recipe on the corpus until its last step, going on from the newest checkpoint if there is one.

    Called by every process of the world. True: all steps are done. False: it was asked to stop (a signal, a launcher that is
    gone), has saved, and the same call goes on. Raises ValueError, on every rank alike, for anything the user has to change; a
    RankError for what concerns one process alone (a GPU that is not there); ends the process if another rank is lost.
    """
    stop = StopRequest()
    stop.listen()
    place = meet(job.config, world, stop)
    if place is None:
        return False
    with Watchdog(world, job.config.train.timeout_s, stop.ask) as watchdog:
        return _train(job, _checked_start(job, place), place, stop, watchdog)


def _checked_start(job: Job, place: Place) -> Begun:
    """Every rank opens the corpus, and all agree on what they train and from whose weights; the bytes of each copy of the
    corpus are checked, and then rank 0 checks the memory and the run directory for all."""
    check_attention(job.config, place)
    corpus = place.ranks.together(lambda: open_corpus(job.data_dir, verify="sizes"))
    check_agreement(place.ranks, plan_of(job.config, place.ds_dictionary, corpus))
    copies = place.ranks.gather(place.ranks.together(lambda: copy_of(corpus)))  # one where all nodes share a disk
    reads = copies.index(copies[place.ranks.rank]) == place.ranks.rank
    place.ranks.together(lambda: check_hashes(corpus) if reads else None)
    launchers = place.ranks.gather(launcher_of(os.environ))
    fresh = place.ranks.from_main(lambda: job.fresh and not was_begun_by(job.run_dir, launchers))
    weights = first_weights(None if fresh else job.run_dir, job.start_from, place.ranks)

    def check() -> dict[str, Any]:
        system = System(job.recipe, job.config, corpus.vocab_size, place.ranks.size)
        check_fits(system, *device_memory(os.environ))
        wanted = run_file(job.config, job.recipe, corpus, None if weights is None else weights.record)
        if weights is not None:
            check_weights(weights, job.config, corpus)
            for line in lines_of(weights, wanted):
                say(line)
        held = open_run(job.run_dir, wanted, fresh, say)
        atexit.register(held.close)  # the lock is this process's until its end
        if job.fresh:
            record_launchers(job.run_dir, launchers)
        make_place(job.run_dir)
        if not (job.run_dir / "summary.json").exists():  # a finished run keeps what it was made with
            write_object(job.run_dir / "ds_config.json", place.ds_dictionary)
            write_object(job.run_dir / "versions.json", versions())
        return check_run(job.run_dir, wanted)

    made_from = place.ranks.from_main(check)
    check_directory(job.run_dir, place, job.config.train.timeout_s)
    return Begun(corpus, made_from, weights)


def _train(job: Job, begun: Begun, place: Place, stop: StopRequest, watchdog: Watchdog) -> bool:
    """Build, train, and say how it ended."""
    config, ranks, corpus = job.config, place.ranks, begun.corpus
    torch.manual_seed(config.train.seed + place.world.rank)
    data = training_data(corpus, config)
    found = newest(job.run_dir, place.say, ranks)
    model = _model(found, job, begun, data, place, watchdog.beat)
    new = found is None and begun.weights is None
    if new and not measured_start(config, model, data, place, job.run_dir, watchdog.beat, stop.asked):
        place.say("stopped while the start was being measured; nothing has begun: the same command starts it")
        return False
    parameters = parameter_count(model)  # ZeRO 3 leaves the model empty

    def evaluation(module: PretrainingModel) -> Evaluation:
        return evaluation_in_training(module, corpus, config, ranks, sum_over_ranks, watchdog.beat, stop.asked)

    trainer, log = trainer_of(job, begun.made_from, place, found, model, data, evaluation, stop, watchdog)
    if trainer.state.step == config.train.steps:
        log.say(f"{job.run_dir} has all its {config.train.steps} steps already")
    finished = trainer.run()
    if finished:
        ranks.on_main(lambda: _finish(job, begun, log, parameters))
    else:
        say_stopped(trainer.state.step, stop, log, ranks)
    return finished


Evaluation = Callable[[int, bool], Figures | None]  # of a Trainer


def trainer_of(
    job: Job,
    made_from: Mapping[str, Any],
    place: Place,
    found: Checkpoint | None,
    model: Model,
    data: Samples,
    evaluation: Callable[[Any], Evaluation],
    stop: StopRequest,
    watchdog: Watchdog,
) -> tuple[Trainer, RunLog]:
    """All between a model and the loop, for pretraining and fine-tuning alike; a collective. `made_from`: the run file.
    `found`: the checkpoint that the model's weights are from. `evaluation` is made of the engine's module."""
    config, ranks = job.config, place.ranks
    facts = _facts(made_from, config, place, model)
    optimizer = PretrainingOptimizer(parameter_groups(model, config))
    built = _engine(model, optimizer, config, place)
    saver = Saver(job.run_dir, side_ranks(), _kept(config), progress=lambda: watchdog.beat("saving"))
    state, progress = _training_state(found, config, built, optimizer, place)
    log = _run_log(job, place, progress, state.step)
    batches = micro_batches(data, place.world, place.batch, place.device)
    trainer = Trainer(
        built,
        optimizer,
        state,
        config.train,
        batches,
        partial(learning_rates, config),
        log=log,
        checkpoints=TrainingCheckpoints(saver, built.module, optimizer, facts, ranks, log, batches),
        evaluate=evaluation(built.module),
        beat=watchdog.beat,
        asked_to_stop=stop.asked,
    )
    return trainer, log


def _engine(model: Model, optimizer: PretrainingOptimizer, config: RunConfig, place: Place) -> Any:
    try:
        return build_engine(model, optimizer, place.ds_dictionary, place.device, config.train.split_masters)
    except ValidationError as error:  # DeepSpeed checks its dictionary with pydantic, too
        raise ValueError(f"train.ds_config = {config.train.ds_config}: DeepSpeed refuses it: {one_line(error)}") from error


def _model(
    found: Checkpoint | None,
    job: Job,
    begun: Begun,
    data: PretrainingData,
    place: Place,
    beat: Callable[[str], None],
) -> PretrainingModel:
    source = found or begun.weights
    if source is None:
        return new_model(job.config, begun.corpus, data, place, beat)
    ranks = place.ranks
    return ranks.together(lambda: trained_model(job.config, begun.corpus, source, begun.made_from, ranks.is_main))


def _training_state(
    found: Checkpoint | None, config: RunConfig, built: Any, optimizer: PretrainingOptimizer, place: Place
) -> tuple[TrainState, Progress | None]:
    """Where training begins: at step 0, or where the checkpoint is, with everything that is not in the weights put back."""
    state = TrainState.new(place.device)
    if found is None:
        return state, None
    ranks, here = place.ranks, (place.world.rank, place.world.size)
    lr = learning_rates(config, found.step)[config.optim.rule]
    samples = found.step * place.batch.global_sequences
    progress = ranks.together(lambda: restored(found, samples, lr))
    ranks.together(lambda: found.load_fragments(optimizer))
    set_rng_states(found.rng_states(*here), place.device)
    optimizer.updates = progress.updates
    window = LossWindow(found.window(*here).to(place.device), progress.window_time_s, progress.window_steps)
    loss = probe.loss(built.module, probe.stored_batch(found))
    ranks.together(lambda: probe.check(found, loss, precision(place.ds_dictionary)))
    place.say(
        f"going on from step {found.step} ({found.directory}, saved by {found.world_size} ranks under ZeRO "
        f"{found.manifest['zero_stage']}; the probe batch has its loss, {loss:.6g}, again)",
    )
    return TrainState(window, found.step, progress.norm_statistics()), progress


def _run_log(job: Job, place: Place, progress: Progress | None, step: int) -> RunLog:
    """With its Monitor on rank 0; what an earlier start has evaluated already is known to all."""
    attempt = 1 if progress is None else progress.attempt + 1
    position = None if progress is None else progress.metrics_bytes
    steps, ranks = job.config.train.steps, place.ranks
    monitor = ranks.on_main(lambda: Monitor(job.run_dir, steps, attempt, first_step=step, position=position))
    logged = ranks.from_main(lambda: has_evaluation(job.run_dir / METRICS, step))
    evaluated_step = step if logged else None
    sums, kind = sum_over_ranks, precision(place.ds_dictionary)
    return RunLog(job.config, kind, ranks.size, sums, monitor, attempt, evaluated_step)


def _kept(config: RunConfig) -> Kept:
    return Kept(config.train.keep_last_checkpoints, config.train.keep_every_steps)


def _facts(made_from: Mapping[str, Any], config: RunConfig, place: Place, model: Model) -> RunFacts:
    """Asked for before the engine has the model: ZeRO 3 leaves it empty."""
    mechanics = {
        "world_size": place.world.size,
        "zero_stage": place.ds_dictionary["zero_optimization"]["stage"],
        "precision": precision(place.ds_dictionary),
        "ds_config": config.train.ds_config,
        "versions": versions() if place.ranks.is_main else {},
    }
    return RunFacts(
        made_from,
        parameter_shapes(model),
        mechanics,
        global_sequences=place.batch.global_sequences,
        encoder_lr=lambda step: learning_rates(config, step)[config.optim.rule],
    )


def _finish(job: Job, begun: Begun, log: RunLog, parameters: int) -> None:
    log.close()
    if not (job.run_dir / "summary.json").exists():
        write_summary(job.run_dir, job.config, job.recipe, begun.corpus, parameters, begun.made_from)


def say_stopped(step: int, stop: StopRequest, log: RunLog, ranks: Ranks) -> None:
    """Of all ranks' reasons the first. A collective."""
    reasons = [reason for reason in ranks.gather(stop.reason) if reason]
    log.say(f"stopped after step {step} ({reasons[0]}) and saved: the same command goes on")
    ranks.on_main(log.close)
