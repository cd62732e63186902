"""The fine-tuning of a run on a task, seed after seed: each seed is a run directory of its own, trained by the same Trainer,
engine and checkpoints as pretraining, and evaluated at its end.

    OUT/TASK/seed-0/   config.json, checkpoints/, metrics.jsonl, … as a run's; the tokenizer; predictions-dev.json,
                       nbest-dev.json, null_odds-dev.json; results.json last: a seed that has it is not trained again

from-scratch runs lie in OUT/TASK-from-scratch/.
"""

import atexit
import gc
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoint.reader import Checkpoint
from pipeline.checkpoint.resume import newest
from pipeline.checkpoint.writer import make_place
from pipeline.config.ds_config import precision
from pipeline.config.load import as_dict
from pipeline.config.schema import RunConfig
from pipeline.distributed.launch import World
from pipeline.distributed.stop_signals import StopRequest
from pipeline.distributed.watchdog import Watchdog
from pipeline.engine.processes import sum_over_ranks
from pipeline.finetune.dev import Part, Said, logits_of, prepared, said_of
from pipeline.finetune.model import TOKENIZER, initial_model
from pipeline.finetune.settings import with_length
from pipeline.finetune.source import Source, read_source
from pipeline.memory.fits import check_fits, device_memory
from pipeline.memory.system import System
from pipeline.model.build import build_task_model
from pipeline.model.pretraining import parameter_count, parameter_shapes
from pipeline.model.task_model import TaskModel
from pipeline.run.directory import check_run, check_same, open_run, run_file, versions
from pipeline.run.metrics_file import METRICS, read_metrics
from pipeline.run.trained import read_record
from pipeline.tasks.examples import TaskName
from pipeline.tasks.samples import TaskData, training_rows
from pipeline.tasks.sets import TaskSet, load_set
from pipeline.train.agreement import check_agreement, plan_of
from pipeline.train.evaluate import asked_anywhere
from pipeline.train.place import Place, check_attention, check_directory, meet
from pipeline.train.run_log import say
from pipeline.train.start import Evaluation, Job, say_stopped, trainer_of
from preprocessing.base.files import write_whole
from preprocessing.base.json_file import write_object
from preprocessing.corpus.manifest import TOKENIZER_FILE
from preprocessing.text.tokenizer import load

RESULTS = "results.json"


@dataclass(frozen=True)
class Request:
    """What is asked for. `config`: of every seed, without its length (`settings.with_length`). `corpus_dir`: where the source's
    corpus is now; `data_dir` None: the task's data come from the hub."""

    task: TaskName
    config: RunConfig
    recipe: str
    source_dir: Path
    out: Path
    data_dir: Path | None = None
    corpus_dir: Path | None = None
    seeds: int = 1
    from_scratch: bool = False

    def run_dir(self, seed: int) -> Path:
        """Where a seed lives."""
        return self.out / (self.task + "-from-scratch" * self.from_scratch) / f"seed-{seed}"


@dataclass(frozen=True)
class Prepared:
    """What all seeds share: the source, the task's set, its training rows and its dev parts, tokenised."""

    source: Source
    examples: TaskSet
    rows: Sequence[Any]
    parts: Mapping[str, Part]


def finetune(request: Request, world: World) -> bool:
    """Train and evaluate each seed that has no results yet, going on from its newest checkpoint.

    Called by every process of the world. True: all seeds are done. False: it was asked to stop and has saved; the same call
    goes on. Raises ValueError, on every rank alike, for anything the user has to change.
    """
    stop = StopRequest()
    stop.listen()
    config = request.config
    place = meet(config, world, stop)
    if place is None:
        return False
    with Watchdog(world, config.train.timeout_s, stop.ask) as watchdog:
        check_attention(config, place)
        place.ranks.from_main(lambda: _check_memory(request, place))
        ready = place.ranks.together(lambda: _prepared(request, watchdog.beat))
        for seed in range(request.seeds):
            seeded = with_length(config, len(ready.rows), seed)
            job = Job(seeded, request.recipe, Path(ready.source.corpus.directory), request.run_dir(seed))
            if not _is_done(job, ready, place) and not _train(job, ready, place, stop, watchdog):
                return False
            gc.collect()  # an engine holds itself in circles: the next seed needs its memory
    return True


def _check_memory(request: Request, place: Place) -> None:
    """Before anything is read, as `pretrain` does: ValueError if the model does not fit here, whatever the batch."""
    vocab_size = int(read_record(request.source_dir)["vocab_size"])
    check_fits(System(request.recipe, request.config, vocab_size, place.ranks.size), *device_memory(os.environ))


def _prepared(request: Request, beat: Callable[[str], None]) -> Prepared:
    source = read_source(request.source_dir, request.corpus_dir, request.from_scratch)
    beat("reading the task's data")
    examples = load_set(request.task, request.data_dir)
    beat("tokenising")
    tokenizer = load(Path(source.corpus.directory) / TOKENIZER_FILE)
    rows = training_rows(examples.train, tokenizer, request.config)
    beat("tokenising the dev set")
    parts = {name: prepared(part, tokenizer, request.config) for name, part in examples.dev.items()}
    return Prepared(source, examples, rows, parts)


def _made_from(job: Job, ready: Prepared) -> dict[str, Any]:
    """The contents of config.json: as a pretraining's, and what is fine-tuned on what."""
    return {
        **run_file(job.config, job.recipe, ready.source.corpus),
        "task_data_sha256": ready.examples.sha256,
        "weights_sha256": ready.source.weights_sha256,
        "source": dict(ready.source.facts),
    }


def _is_done(job: Job, ready: Prepared, place: Place) -> bool:
    """Has this seed its results? ValueError, on all ranks, if the folder is of another fine-tuning."""
    plan = plan_of(job.config, place.ds_dictionary, ready.source.corpus)
    more = {"task data: sha256": ready.examples.sha256, "pretrained weights: sha256": ready.source.weights_sha256}
    check_agreement(place.ranks, {**more, **plan})  # other data may have another number of steps: name the cause
    place.ranks.on_main(lambda: check_run(job.run_dir, _made_from(job, ready)))
    done = bool(place.ranks.from_main(lambda: (job.run_dir / RESULTS).exists()))
    if done:
        place.say(f"{job.run_dir} has its results already")
    return done


def _open(job: Job, ready: Prepared, place: Place) -> None:
    """The run directory, on rank 0, and that all ranks see it."""

    def make() -> None:
        held = open_run(job.run_dir, _made_from(job, ready))
        atexit.register(held.close)  # the lock is this process's until its end
        make_place(job.run_dir)
        write_whole(job.run_dir / TOKENIZER, (Path(ready.source.corpus.directory) / TOKENIZER_FILE).read_bytes())
        write_object(job.run_dir / "ds_config.json", place.ds_dictionary)
        write_object(job.run_dir / "versions.json", versions())

    place.ranks.on_main(make)
    check_directory(job.run_dir, place, job.config.train.timeout_s)


def _model(found: Checkpoint | None, job: Job, ready: Prepared, place: Place) -> TaskModel:
    """With its weights on rank 0, from where the engine hands them to all."""
    if found is None:
        return initial_model(job.config, ready.source).to(place.device)
    check_same(found.manifest["made_from"], _made_from(job, ready), found.directory, "it is not this run's: move it away")
    model = build_task_model(job.config, ready.source.corpus.vocab_size)
    found.check_covers(parameter_shapes(model))
    if place.ranks.is_main:
        found.load_parameters(model)
    return model


def _train(job: Job, ready: Prepared, place: Place, stop: StopRequest, watchdog: Watchdog) -> bool:
    """One seed: build, train, evaluate, write what it says. False: asked to stop, saved."""
    config, ranks = job.config, place.ranks
    _open(job, ready, place)
    torch.manual_seed(config.train.seed + place.world.rank)
    found = newest(job.run_dir, place.say, ranks)
    model = ranks.together(partial(_model, found, job, ready, place))
    parameters = parameter_count(model)  # ZeRO 3 leaves the model empty
    said: dict[str, Said] = {}

    def evaluation(module: TaskModel) -> Evaluation:
        interrupted = partial(asked_anywhere, watchdog.beat, "the evaluation", stop.asked, place.device, sum_over_ranks)
        return lambda step, last: _evaluated(module, ready.parts, config, place, said, interrupted)

    data = TaskData(ready.rows, config.data.seq_len, config.train.seed)
    trainer, log = trainer_of(job, _made_from(job, ready), place, found, model, data, evaluation, stop, watchdog)
    finished = trainer.run()
    if finished and not said:  # its evaluation was logged by an earlier start, which ended before its results
        assert trainer.evaluate is not None
        finished = trainer.evaluate(trainer.state.step, True) is not None
    if finished:
        ranks.on_main(lambda: _finish(job, ready, place, said, parameters))
        ranks.on_main(log.close)
    else:
        say_stopped(trainer.state.step, stop, log, ranks)
    return finished


def _evaluated(
    model: TaskModel,
    parts: Mapping[str, Part],
    config: RunConfig,
    place: Place,
    said: dict[str, Said],
    interrupted: Callable[[], bool],
) -> dict[str, Any] | None:
    """Fills `said`; returns what the log is told: the mean loss, and each figure under its part's name. None: broken off."""
    for name, part in parts.items():
        found = logits_of(model, part.data, config.batch.micro_sequences, place.ranks, interrupted)
        if found is None:
            return None
        logits, sums = found
        loss, count = sum_over_ranks(sums.to(place.device)).tolist()
        said[name] = said_of(part, logits, loss / count, config, place.ranks)
    figures = {f"{name}_{key}": value for name, one in said.items() for key, value in one.figures.items()}
    return {"heldout_loss": sum(one.loss for one in said.values()) / len(said), **figures}


def _finish(job: Job, ready: Prepared, place: Place, said: Mapping[str, Said], parameters: int) -> None:
    """What was said, and the results, last."""
    for name, one in said.items():
        for kind, content in one.files.items():
            write_object(job.run_dir / f"{kind}-{name}.json", content)
    train, _ = read_metrics(job.run_dir / METRICS)
    config = job.config
    results = {
        "task": config.task.name,
        "seed": config.train.seed,
        "recipe": job.recipe,
        "figures": {name: {"loss": one.loss, **one.figures} for name, one in said.items()},
        "source": dict(ready.source.facts),
        "data": dict(ready.examples.sources),
        "training_rows": len(ready.rows),
        "steps": config.train.steps,
        "parameters": parameters,
        "train_time_s": sum(row["time_s"] for row in train),
        "world_size": place.world.size,
        "zero_stage": place.ds_dictionary["zero_optimization"]["stage"],
        "precision": precision(place.ds_dictionary),
        "config": as_dict(config),
        "versions": versions(),
    }
    write_object(job.run_dir / RESULTS, results)
    for name, one in said.items():
        shown = ", ".join(f"{key} {value:.2f}" for key, value in one.figures.items() if "total" not in key)
        say(f"{config.task.name}, seed {config.train.seed}, {name}: {shown}")
