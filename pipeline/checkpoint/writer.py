"""Saving beside the training: the main thread copies, a thread writes, and a failure is an alarm, not the end of the run.

1. main thread, all ranks, after a step     `start`: a copy in host memory
2. writer, rank 0                           makes .writing-step-N
3. writer, all ranks                        write their shards, fsync, hash
4. main thread, rank 0                      `give_probe`, from the next forward pass
5. writer, rank 0                           probe, manifest, fsync, rename to step-N, fsync
6. writer, rank 0                           `latest` by rename; deletes surplus ones

After 2, 3 and 5 the ranks' writers tell each other how it went.
"""

import math
import queue
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from pipeline.checkpoint import retention
from pipeline.checkpoint.layout import (
    CHECKPOINTS,
    FORMAT,
    LATEST,
    PROBE,
    hidden,
    shard_name,
    step_directory,
    write_manifest,
)
from pipeline.checkpoint.snapshot import Snapshot
from pipeline.checkpoint.tensor_file import write_tensors
from pipeline.distributed.ranks import Ranks
from pipeline.optim.fp32_vector import Fp32Vector
from preprocessing.base.command_line import one_line
from preprocessing.base.files import file_sha256, sync_directory, write_whole

Result = TypeVar("Result")
Probe = queue.SimpleQueue[tuple[Mapping[str, Tensor], Tensor]]  # a batch and its loss, once it is known


@dataclass(frozen=True)
class Kept:
    """Which checkpoints are kept (`retention.surplus`)."""

    last: int = 0
    every_steps: int = 0


@dataclass(frozen=True)
class Saved:
    """How one save ended. `problem` is None if the checkpoint is whole; then `untidy` says why `latest` was not renewed or
    older ones were not deleted."""

    step: int
    problem: str | None
    untidy: str | None


class Saver:
    """One on every rank; `ranks` must exchange over a process group that no other thread uses. `progress` is called whenever
    the writer has got further, the same number of times on every rank."""

    def __init__(self, run_dir: Path, ranks: Ranks, kept: Kept, progress: Callable[[], None] = lambda: None) -> None:
        self._run_dir, self._ranks, self._kept, self._progress = run_dir, ranks, kept, progress
        self._snapshot = Snapshot()
        self._thread: threading.Thread | None = None
        self._saved: Saved | None = None
        self._probe: Probe = queue.SimpleQueue()
        self.wants_probe = False

    def start(self, step: int, tensors: Mapping[str, Tensor | Fp32Vector], manifest: Mapping[str, Any]) -> Saved | None:
        """Copy this rank's tensors and let the writer begin. The save before it must have ended: `start` waits for it and
        returns how it went. `manifest` holds what is known, all but step, files and probe. Rank 0 owes the probe then."""
        before = self.wait()
        self._snapshot.take(tensors)
        self._probe = queue.SimpleQueue()  # a new one: what a save that failed has not taken must not reach the next
        self._thread = threading.Thread(target=self._write, args=(step, dict(manifest), self._probe), daemon=True)
        self.wants_probe = self._ranks.is_main
        self._thread.start()
        return before

    def give_probe(self, batch: Mapping[str, Tensor], loss: Tensor) -> None:
        """A batch and its loss, a scalar, under the weights that are being saved."""
        self._probe.put((batch, loss))
        self.wants_probe = False

    def finished(self) -> Saved | None:
        """How the last save went, once it has ended and only once; None before, and without a save."""
        ended = self._thread is not None and not self._thread.is_alive()
        return self.wait() if ended and not self.wants_probe else None  # one that failed early is told after its probe

    def wait(self) -> Saved | None:
        """Wait for the writer, which must have its probe; how it went, None if there was nothing to wait for."""
        assert not self.wants_probe, "give_probe comes before wait"
        if self._thread is None:
            return None
        self._thread.join()
        self._thread, saved, self._saved = None, self._saved, None
        return saved

    def _write(self, step: int, manifest: dict[str, Any], probe: Probe) -> None:
        problem, untidy = None, None
        try:
            self._write_together(step, manifest, probe)
        except Exception as error:  # whatever it is, for instance of a collective whose other ranks are gone, it is told
            problem = one_line(error)
            if self._ranks.is_main:  # give the space of the half-written files back
                shutil.rmtree(hidden(step_directory(self._run_dir, step), "writing"), ignore_errors=True)
        else:
            untidy = self._tidy_up(step) if self._ranks.is_main else None
        self._saved = Saved(step, problem, untidy)

    def _write_together(self, step: int, manifest: dict[str, Any], probe: Probe) -> None:
        ranks, final = self._ranks, step_directory(self._run_dir, step)
        temporary = hidden(final, "writing")
        ranks.on_main(told(lambda: begin(self._run_dir, temporary)))
        self._progress()
        shard_path = temporary / shard_name(ranks.rank, ranks.size)
        shard = ranks.together(told(lambda: write_shard(shard_path, self._snapshot.tensors())))
        self._progress()
        manifest |= {"format": FORMAT, "step": step, "files": ranks.gather(shard)}
        ranks.on_main(told(lambda: commit(temporary, final, manifest, *probe.get())))
        self._progress()

    def _tidy_up(self, step: int) -> str | None:
        try:
            point_latest_to(step_directory(self._run_dir, step))
            there = retention.steps_on_disk(self._run_dir)
            # What is newer was passed over by the resume: it is not whole, and must not push a whole one out.
            until_now = [other for other in there if other <= step]
            for doomed in retention.surplus(until_now, self._kept.last, self._kept.every_steps):
                retention.delete(there[doomed])
        except OSError as error:
            return one_line(error)
        return None


def told(work: Callable[[], Result]) -> Callable[[], Result]:
    """`work` whose every error the other ranks get to hear: a writer that left without a word would answer their question about
    this save with its answer about the next one."""

    def guarded() -> Result:
        try:
            return work()
        except (ValueError, OSError):
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error

    return guarded


def begin(run_dir: Path, temporary: Path) -> None:
    """Before any rank writes: an empty temporary directory. RUN/checkpoints itself must be there: making it anew would hide a
    file system that has gone away."""
    retention.clear_leftovers(run_dir)
    temporary.mkdir()


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write a file of a checkpoint; returns its entry in the manifest: {file, bytes, sha256, tensors: {key: elements}}."""
    write_tensors(path, tensors)
    elements = {key: tensor.numel() for key, tensor in tensors.items()}
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path), "tensors": elements}


def commit(temporary: Path, final: Path, manifest: dict[str, Any], probe: Mapping[str, Tensor], loss: Tensor) -> None:
    """Rank 0, after every rank has written: probe, manifest, rename. What stands at `final` (a checkpoint of this step
    that a resume has found damaged) goes when the new one is whole."""
    if not math.isfinite(loss):
        raise ValueError(f"the loss with these weights is {float(loss)}: a checkpoint of them would be of no use")
    manifest["probe"] = {"loss": float(loss)}
    manifest["files"] = [*manifest["files"], write_shard(temporary / PROBE, probe)]
    write_manifest(temporary, manifest)  # the last to be named in the directory, which it syncs
    replaced = hidden(final, "replaced")
    if final.exists():
        final.rename(replaced)
    temporary.rename(final)
    try:
        sync_directory(final.parent)
    except OSError:  # it might not survive a power loss: it is not there, then
        final.rename(temporary)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def point_latest_to(final: Path) -> None:
    """Write RUN/checkpoints/latest."""
    write_whole(final.parent / LATEST, f"{final.name}\n".encode())


def make_place(run_dir: Path) -> None:
    """RUN/checkpoints, once, at the start of a run."""
    (run_dir / CHECKPOINTS).mkdir(exist_ok=True)
