"""The steps of a build: plan and tokenizer, slices, finalize. Each does only what is missing, and can be stopped anywhere.

OUT is either absent or whole. Until it is whole, everything is in OUT.work (plan.py), and what is done stays done.
The same sources and settings give the same bytes in every file of OUT, whatever the number of tasks and processes.
"""

import errno
import glob
import hashlib
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from preprocessing.base.files import write_whole
from preprocessing.build.finalize import finalize as make_corpus
from preprocessing.build.ledger import check_gates
from preprocessing.build.marker import read_marker
from preprocessing.build.plan import (
    SLICES_FOLDER,
    Gates,
    Plan,
    begun,
    check_same,
    cut,
    read_plan,
    request,
    tokenizer_name,
    versions,
    work_folder,
    write_plan,
)
from preprocessing.build.settings import PlannedSettings, Settings
from preprocessing.build.slices import make_slice, make_state
from preprocessing.build.survey import Survey, survey
from preprocessing.build.workers import cores, work
from preprocessing.corpus.manifest import MANIFEST_FILE, Manifest
from preprocessing.corpus.reader import open_corpus
from preprocessing.sources.types import Source
from preprocessing.text.sentences import split_sentences
from preprocessing.text.tokenizer import train

Say = Callable[[str], None]


def build(
    sources: Sequence[Source],
    out: Path,
    settings: Settings,
    *,
    gates: Gates | None = None,
    tokenizer: Path | None = None,
    workers: int | None = None,
    say: Say = print,
) -> Manifest:
    """Build the corpus at `out`, go on with it, or find it built there already; returns its manifest. `tokenizer`: the file of
    the one whose sha256 is in the settings.

    ValueError or OSError, said in one line: bad settings or sources; another corpus or other files at `out`; disk full.
    """
    gates = gates or Gates()
    if (present := already_built(sources, out, settings, gates)) is not None:
        say(f"{out}: already built with these sources and settings")
        _remove_work(out)
        return present
    plan_and_train(sources, out, settings, gates, tokenizer=tokenizer, workers=workers, say=say)
    run_task(out, workers=workers, say=say)
    return finalize(out, workers=workers, say=say)


def already_built(sources: Sequence[Source], out: Path, settings: Settings, gates: Gates) -> Manifest | None:
    """The manifest at `out` if it is this very corpus; None if there is nothing.

    ValueError: something else is there, nothing can be made there, or the corpus does not keep to the gates.
    """
    _check_gates(gates, sources)
    wanted = request(sources, settings.check(sources).as_json(), versions())
    _check_place(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        manifest = open_corpus(out, verify="sizes").manifest
    except (ValueError, OSError) as error:
        raise ValueError(f"{out}: exists and is not a corpus to keep ({error}); move it away or choose another --out") from None
    check_same(out, request(manifest.sources, manifest.settings, manifest.versions), wanted)
    check_gates(manifest.sources, gates)
    return manifest


def _check_place(out: Path) -> None:
    """ValueError or OSError if a directory could not be renamed to `out` in the end: better said before the work."""
    if out.is_symlink() or out.is_mount():
        raise ValueError(f"{out}: a link or a mount point, which a finished corpus can't replace; choose a name inside it")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise PermissionError(f"{out.parent}: can't be written to; choose another --out")


def plan_and_train(
    sources: Sequence[Source],
    out: Path,
    settings: Settings,
    gates: Gates,
    *,
    tokenizer: Path | None = None,
    workers: int | None = None,
    say: Say = print,
) -> Plan:
    """Make the plan and the tokenizer in the work folder of `out`, or find them there; see the module for errors."""
    checked, folder = settings.check(sources), work_folder(out)
    wanted = request(sources, checked.as_json(), versions())
    with _explained(folder):
        if begun(folder):
            found = read_plan(folder)
            check_same(folder, request(found.sources, found.settings.as_json(), found.versions), wanted)
            plan = replace(found, sources=tuple(sources), gates=gates)
            if plan != found:  # the files may lie elsewhere now, and gates may be opened
                write_plan(folder, plan, first=False)
            return plan
        cuts = cut(sources, checked.slice_mb)
        with _progress("surveying", None, say) as done:
            found_by_survey = survey(sources, cuts, checked, gates, workers or cores(), done)
        model = _trained(found_by_survey, checked, say) if tokenizer is None else tokenizer.read_bytes()
        tokenizer_sha256 = hashlib.sha256(model).hexdigest()
        if checked.tokenizer not in (None, tokenizer_sha256):
            raise ValueError(f"{tokenizer}: changed meanwhile: sha256 {tokenizer_sha256[:12]}…, was {checked.tokenizer[:12]}…")
        (folder / SLICES_FOLDER).mkdir(parents=True, exist_ok=True)  # not before: bad sources leave nothing behind
        write_whole(folder / tokenizer_name(tokenizer_sha256), model)
        plan = Plan(
            sources=tuple(sources),
            settings=checked,
            versions=versions(),
            gates=gates,
            slices=cuts,
            heldout_limits=found_by_survey.heldout_limits,
            tokenizer_sha256=tokenizer_sha256,
        )
        if not write_plan(folder, plan, first=True):  # somebody was quicker
            return plan_and_train(sources, out, settings, gates, tokenizer=tokenizer, workers=workers, say=say)
    return plan


def _trained(found: Survey, settings: PlannedSettings, say: Say) -> bytes:
    sentences = [sentence for paragraph in found.sample for sentence in split_sentences(paragraph)]
    say(f"training the tokenizer on {sum(map(len, sentences)):,} characters")
    return train(sentences, settings.vocab_size, say)


def _check_gates(gates: Gates, sources: Sequence[Source]) -> None:
    names = [source.name for source in sources]
    for name in gates.least:
        if name not in names:
            raise ValueError(f"--expect {name}: no such source; the sources are {', '.join(names)}")


def run_task(out: Path, task: int = 0, tasks: int = 1, *, workers: int | None = None, say: Say = print) -> None:
    """Make those slices of task `task` of `tasks` that are not done yet: consecutive ones, a share as equal as can be."""
    if not 0 <= task < tasks:
        raise ValueError(f"--task {task}/{tasks}: expected I/N with 0 <= I < N")
    folder = work_folder(out)
    if (plan := _plan_of(folder, out, say)) is None:
        return
    n = len(plan.slices)
    own = range(n * task // tasks, n * (task + 1) // tasks)
    missing = [number for number in own if read_marker(folder, plan, number) is None]
    say(f"{len(own)} of {n} slices, {len(own) - len(missing)} of them done")
    (folder / SLICES_FOLDER).mkdir(exist_ok=True)
    with _explained(folder), _progress("encoding", len(missing), say) as done:
        work(make_slice, missing, partial(make_state, folder, plan), workers or cores(), done)


def finalize(out: Path, *, workers: int | None = None, say: Say = print) -> Manifest:
    """Put the finished slices together at `out` and remove the work folder; returns the manifest."""
    folder = work_folder(out)
    if (plan := _plan_of(folder, out, say)) is None:
        return open_corpus(out, verify="sizes").manifest
    with _explained(folder), _progress("finalizing", len(plan.slices), say) as done:
        try:
            make_corpus(folder, plan, out, workers or cores(), done)
        except (OSError, ValueError):  # another finalize was quicker, and is removing what this one reads
            if not _is_built(plan, out):
                raise
    _remove_work(out)
    say(f"{out}: built")
    return open_corpus(out, verify="sizes").manifest


def _plan_of(folder: Path, out: Path, say: Say) -> Plan | None:
    """The plan of a build; None if there is none any more because the corpus is finished (a job that was queued again)."""
    try:
        return read_plan(folder)
    except FileNotFoundError:
        if not (out / MANIFEST_FILE).is_file():
            raise
        say(f"{out}: already built")
        return None


def _is_built(plan: Plan, out: Path) -> bool:
    if not (out / MANIFEST_FILE).is_file():
        return False
    manifest = open_corpus(out, verify="sizes").manifest
    return (manifest.settings, manifest.tokenizer_sha256) == (plan.settings.as_json(), plan.tokenizer_sha256)


def _remove_work(out: Path) -> None:
    """Remove the work folder. It goes under another name first: half of it must not look like a build."""
    folder = work_folder(out)
    going = folder.with_name(f"{folder.name}.removing-{socket.gethostname()}-{os.getpid()}")
    if begun(folder):  # nothing but ours in it
        with suppress(FileNotFoundError):  # another process was quicker
            os.rename(folder, going)
    for left in folder.parent.glob(f"{glob.escape(folder.name)}.removing-*"):  # by this process, or one that was killed
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Says of a full disk what was written and what stays."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = next(path for path in folder.parents if path.exists())
        free = shutil.disk_usage(place).free
        raise OSError(
            f"{place}: disk full: the next file did not fit into the {free:,} bytes left; what is finished stays: free some "
            f"space and run the command again, or choose an --out on another disk"
        ) from error


@contextmanager
def _progress(label: str, total: int | None, say: Say) -> Iterator[Callable[[Any], None]]:
    """Counts slices: a bar on a terminal, else a line a tenth."""
    if sys.stderr is not None and sys.stderr.isatty():
        with tqdm(desc=label, total=total, unit=" slices", leave=False) as bar:
            yield lambda result: bar.update()
        return
    say(label)
    count, step = 0, max(1, (total or 10) // 10)

    def done(result: Any) -> None:
        nonlocal count
        count += 1
        if total and total > 10 and count % step == 0:
            say(f"{label}: {count} of {total} slices")

    yield done
