"""A run's directory: the files written at its start, its lock, and what must agree when training is resumed."""

import fcntl
import importlib.metadata
import itertools
import os
import platform
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from pipeline.config.load import as_dict, from_dict
from pipeline.config.schema import RunConfig
from pipeline.run.extension import EXTENSIONS, extended, lengths, put_summary_aside
from preprocessing.base.files import WRITING
from preprocessing.base.json_file import read_object, write_object
from preprocessing.corpus.reader import Corpus

PACKAGES = ("torch", "deepspeed", "numpy", "pyarrow", "sentencepiece", "safetensors")


LOCK = ".lock"
RUN_FILE_KEYS = ("data", "corpus_sha256", "tokenizer_sha256", "config")
STARTED_FROM = "started_from"  # in config.json: whose weights the run began with, if not its own

FINE_TUNED_FROM = ("task_data_sha256", "weights_sha256")  # a fine-tuning's file has these, too

# Settings that may change between two starts of a run: how often it logs, evaluates, saves and when it gives up, and how the
# same global batch is divided. None of them changes what is trained on what.
FREE_TO_CHANGE = {
    "train": {
        "ds_config",
        "log_every_steps",
        "eval_every_steps",
        "eval_sequences",
        "checkpoint_every_steps",
        "keep_last_checkpoints",
        "keep_every_steps",
        "max_nonfinite_steps",
        "activation_checkpointing",
        "update_elements",
        "split_masters",
        "attention_kernel",
        "timeout_s",
    },
    "batch": {"micro_sequences"},
}


def run_file(config: RunConfig, recipe: str, corpus: Corpus, started_from: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The contents of RUN/config.json: what is trained on what, from whose weights (`started_from.Weights.record`; None: its
    own). Each checkpoint holds the same, and what `open_run` added when the run was extended."""
    return {
        "recipe": recipe,
        "data": str(Path(corpus.directory).resolve()),
        "corpus_sha256": corpus.manifest_sha256,
        "tokenizer_sha256": corpus.manifest.tokenizer_sha256,
        "vocab_size": corpus.vocab_size,
        "config": as_dict(config),
        **({} if started_from is None else {STARTED_FROM: dict(started_from)}),
    }


def versions() -> dict[str, str]:
    """Of python, the packages that shape the numbers, the platform and the source's git commit (if it is a checkout)."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "git": _git_commit(),
        "command": shlex.join(["python", "-m", "pipeline", *sys.argv[1:]]),
    }


def _git_commit() -> str:
    root = Path(__file__).parent.parent.parent
    if not (root / ".git").exists():
        return "not a git checkout"
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown: git does not answer"


def open_run(run_dir: Path, wanted: Mapping[str, Any], fresh: bool = False, say: Callable[[str], None] = print) -> IO[str]:
    """Make the directory RUN, or check that the one there belongs to this run (`check_run`), and note what is new: a longer
    training, another place of the corpus. With `fresh` an existing run is archived first (`archive_run`). Returns the open lock
    file: while the process holds it, no other process trains this run."""
    made_from = dict(wanted)
    if not fresh:
        made_from = check_run(run_dir, wanted)
    elif not is_empty(run_dir):
        archive_run(run_dir.resolve())
    run_dir.resolve().mkdir(parents=True, exist_ok=True)  # where a link points at, if RUN is one
    held = lock(run_dir)
    path = run_dir / "config.json"
    if path.exists():
        _note(path, made_from, say)
    else:
        write_object(path, made_from)
    return held


def _note(path: Path, made_from: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Put into config.json what is new, and say it; the settings that are free to change stay those of the first start."""
    there = read_object(path, required=RUN_FILE_KEYS)
    news = {}
    if there["data"] != made_from["data"]:
        news["data"] = made_from["data"]
        say(f"the corpus of {path.parent} is {made_from['data']} now (it was {there['data']}): noted")
    if there.get(EXTENSIONS) != made_from.get(EXTENSIONS):
        last = made_from[EXTENSIONS][-1]
        steps = made_from["config"]["train"]["steps"]
        news[EXTENSIONS] = made_from[EXTENSIONS]
        news["config"] = {**there["config"], "train": {**there["config"]["train"], "steps": steps}}
        say(f"{path.parent} is extended from {last['steps']} steps to {steps}, at step {last['at_step']}: noted")
        put_summary_aside(path.parent, last["steps"])
    if news:
        write_object(path, {**there, **news})


def archive_run(run_dir: Path) -> Path:
    """Rename RUN to the first free name of RUN.1, RUN.2, … and return it. ValueError if RUN is not a run directory, is being
    trained, or cannot be renamed."""
    if not (run_dir / "config.json").is_file():
        raise ValueError(f"{run_dir} is there but holds no config.json: it is not a run directory; give another --run")
    with lock(run_dir, wait_s=0):
        aside = next(path for n in itertools.count(1) if not (path := run_dir.with_name(f"{run_dir.name}.{n}")).exists())
        try:
            run_dir.rename(aside)
        except OSError as error:  # a mount point, a parent that cannot be written to
            what = "a mount point cannot be renamed" if os.path.ismount(run_dir) else error.strerror
            raise ValueError(
                f"--fresh cannot put {run_dir} aside as {aside}: {what}; give another --run, such as {run_dir / 'new'}"
            ) from error
    print(f"--fresh: the run that was there is {aside} now", flush=True)
    return aside


def lock(run_dir: Path, wait_s: float = 60.0) -> IO[str]:
    """An exclusive lock on RUN, released when the process ends, however it ends. A process that was killed a moment ago may
    still hold it, so this waits up to `wait_s`; ValueError if another process keeps it."""
    file = (run_dir / LOCK).open("a+", encoding="utf-8")
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                file.seek(0)
                raise ValueError(
                    f"{run_dir} is being trained by another process ({file.read().strip()}): wait for it, or give another --run"
                ) from None
            time.sleep(0.2)
        except OSError as error:  # a file system without locks
            print(f"{run_dir}: not locked against a second job, its file system has no locks ({error.strerror})", flush=True)
            break
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def check_run(run_dir: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The run file to go on with: `wanted` and what the run there says of its past. ValueError unless RUN can be made, or is a
    run of the same configuration and corpus; the message names what differs.

    `wanted` is what `run_file` returns. The corpus' path, the recipe's description and FREE_TO_CHANGE may differ between two
    starts of a run; train.steps may be more where that is no other training (`extension.extended`).
    """
    if not run_dir.exists():
        parent = next(p for p in run_dir.absolute().parents if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise ValueError(f"{run_dir} cannot be made: {parent} is not a directory that can be written to")
        return dict(wanted)
    if is_empty(run_dir):
        return dict(wanted)
    path = run_dir / "config.json"
    if not path.is_file():
        raise ValueError(f"{run_dir} is there but holds no config.json: it is not a run directory; give another --run")
    found = read_object(path, required=RUN_FILE_KEYS)
    known = {key: found[key] for key in (STARTED_FROM, EXTENSIONS) if key in found}
    going_on = extended(run_dir, found, {**known, **wanted})
    fresh = "or --fresh, which puts the run that is there aside"
    hashes = {name: wanted[name] for name in ("tokenizer_sha256", "corpus_sha256")}
    check_same({**found, **hashes}, going_on, run_dir, f"give another --run, the same settings, {fresh}")
    check_same(found, going_on, run_dir, f"give another --run, the corpus that it was begun with ({found['data']}), {fresh}")
    return going_on


def is_empty(run_dir: Path) -> bool:
    """Is RUN missing or empty, but for the files of a start that was killed before it had written config.json?"""
    if not run_dir.exists():
        return True
    return run_dir.is_dir() and all(entry.name.endswith(LOCK) or WRITING in entry.name for entry in run_dir.iterdir())


def check_same(found: Mapping[str, Any], wanted: Mapping[str, Any], where: Path, remedy: str) -> None:
    """Compare the contents of two config.json files; ValueError with the first field that makes them different runs and both
    its values. The corpus' path, the recipe's description and FREE_TO_CHANGE may differ, and so may train.steps if it is a
    length that the run of `wanted` had before it was extended. A setting that is newer than a file has its default there."""
    there, here = ({**file, "config": as_dict(from_dict(file["config"], where=str(where)))} for file in (found, wanted))
    if there["config"]["train"]["steps"] in lengths(wanted):
        there["config"]["train"]["steps"] = here["config"]["train"]["steps"]
    names = ("", "tokenizer_sha256", "corpus_sha256", STARTED_FROM, *FINE_TUNED_FROM)
    parts = [(identity(file["config"]), *(file.get(name) for name in names[1:])) for file in (there, here)]
    for of_found, of_wanted, name in zip(*parts, names, strict=True):
        difference = _first_difference(of_found, of_wanted, name)
        if difference:
            raise ValueError(f"{where} belongs to another configuration: {difference}; {remedy}")


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that define a run: all but the description and FREE_TO_CHANGE."""
    return {
        section: {key: value for key, value in values.items() if key not in FREE_TO_CHANGE.get(section, ())}
        for section, values in config.items()
        if section != "description"
    }


def _first_difference(found: Any, wanted: Any, where: str) -> str | None:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in sorted(found.keys() | wanted.keys()):
            name = f"{where}.{key}" if where else key
            difference = _first_difference(found.get(key), wanted.get(key), name)
            if difference:
                return difference
        return None
    return None if found == wanted else f"{where} is {found!r} there, {wanted!r} here"
