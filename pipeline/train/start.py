"""The start of a run: processes, checks, the corpus."""

import atexit
import os
from typing import Any

from pipeline.checkpoint.writer import make_place
from pipeline.config.batch import batch_arithmetic
from pipeline.config.ds_config import deepspeed_dictionary, load_ds_config
from pipeline.distributed.launch import World
from pipeline.distributed.ranks import Ranks
from pipeline.distributed.stop_signals import StopRequest
from pipeline.distributed.watchdog import Watchdog
from pipeline.engine import processes
from pipeline.memory.fits import check_fits, device_memory
from pipeline.memory.system import System
from pipeline.run.directory import open_run, run_file, versions
from pipeline.train.job import Job
from pipeline.train.trainer import Training
from preprocessing.base.json_file import write_object
from preprocessing.corpus.reader import Corpus, open_corpus


def pretrain(job: Job, world: World) -> bool:
    """Train the recipe on the corpus until its last step, going on from the newest checkpoint if there is one.

    Called by every process of the world. True: all steps are done. False: it was asked to stop (a signal, a launcher that is
    gone), has saved, and the same call goes on. Raises ValueError, on every rank alike, for anything the user has to change; a
    RankError for what concerns one process alone (a GPU that is not there); ends the process if another rank is lost.
    """
    stop = StopRequest()
    stop.listen()
    ds_dictionary = deepspeed_dictionary(
        load_ds_config(job.config.train.ds_config), batch_arithmetic(job.config.batch, world.size)
    )
    timeout_s = job.config.train.timeout_s
    device = processes.start_processes(world, collective_s=2 * timeout_s + 60)  # the watch comes first, with one line
    with Watchdog(world, timeout_s, stop.ask) as watch:
        ranks = processes.ranks_of()
        corpus = _checked_start(job, ds_dictionary, ranks)
        return Training(job, corpus, world, ranks, ds_dictionary, device, stop, watch).run()


def _checked_start(job: Job, ds_dictionary: dict[str, Any], ranks: Ranks) -> Corpus:
    """Rank 0 checks the corpus' hashes, the memory and the run directory for all, then every rank opens the corpus."""

    def check() -> None:
        corpus = open_corpus(job.data_dir)
        system = System(job.recipe, job.config, corpus.vocab_size, ranks.size)
        check_fits(system, *device_memory(os.environ))
        held = open_run(job.run_dir, run_file(job.config, job.recipe, corpus), job.fresh)
        atexit.register(held.close)  # the lock is this process's until its end
        make_place(job.run_dir)
        if not (job.run_dir / "summary.json").exists():  # a finished run keeps what it was made with
            write_object(job.run_dir / "ds_config.json", ds_dictionary)
            write_object(job.run_dir / "versions.json", versions())

    ranks.on_main(check)
    return ranks.together(lambda: open_corpus(job.data_dir, verify="sizes"))
