"""The life of a training job: what follows on each end of a start. docs/slurm.md has the picture.

`python -m slurm.life start|end` is called by job.sh on the job's first node: `start` records the start (exit code 3: no
more starts), `end` prints what to do, `done`, `requeue`, `leave` or `fail`, and says why on standard error.
"""

import argparse
import contextlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.checkpoint.layout import step_directories, step_of
from preprocessing.base import command_line as cli
from preprocessing.base.json_file import read_object
from slurm.records import OUTCOME, append_line, folder_of, now, read_lines

Do = Literal["done", "requeue", "leave", "fail"]
BLAMELESS = (
    "stopped",
    "preempted",
    "bad node",
    "terminated",
    "cancelled",
)  # ends that say nothing about whether the run can get on


UNSEEN = "; nobody else saw the first node's directory"
NO_MORE = 3  # exit code: no more starts; any other but 0 is a node on which this program cannot work


@dataclass(frozen=True)
class Ending:
    """What is known when the ranks of a start have ended.

    outcome: what the program left: "finished", "stopped" (asked to stop, and saved), "refused" (the same command would end
    so again), or "" (nothing: it crashed, or was killed). reason: of it. exit_code: srun's. job_state, job_reason,
    preempted: what SLURM says of the job at this moment. fruitless: starts in a row, this one included, that ended by
    themselves without a newer checkpoint.
    """

    outcome: str
    reason: str
    exit_code: int
    job_state: str
    job_reason: str
    preempted: bool
    fruitless: int


@dataclass(frozen=True)
class Next:
    """What to do; how this end is called in starts.jsonl; and a line for the log."""

    do: Do
    end: str
    why: str


def what_next(ending: Ending, most: int) -> Next:
    """The state machine, as docs/slurm.md draws it. `most`: MOST_FRUITLESS_STARTS."""
    timed_out = ending.job_reason == "TimeLimit"
    if ending.outcome == "finished":
        return Next("done", "finished", "all steps are done")
    if ending.outcome == "refused":
        return Next("fail", "refused", f"not requeued, for it would end the same way: {ending.reason}")
    if ending.job_state not in ("RUNNING", "") and not timed_out:
        return Next("leave", "cancelled", "cancelled, or requeued by SLURM itself: nothing to do here")
    if ending.outcome == "stopped":
        return Next("requeue", "stopped", "saved before the end of its time")
    if ending.preempted:
        return Next("requeue", "preempted", "preempted before it could save; it goes on from the last checkpoint")
    how = "ran into its time limit" if timed_out else f"ended by itself with exit code {ending.exit_code}"
    if ending.fruitless >= most:
        starts = "1 start" if most == 1 else f"{ending.fruitless} starts in a row"
        return Next("fail", "gave up", f"{how}; gave up after {starts} without a new checkpoint: see above what ended them")
    return Next("requeue", "timeout" if timed_out else "crashed", f"{how}; fruitless starts: {ending.fruitless} of {most}")


def newest_step(run_dir: Path) -> int:
    """Of the newest checkpoint, by name alone; 0 without one."""
    found = step_directories(run_dir)
    return step_of(found[0]) if found else 0


def fruitless_starts(lines: Sequence[Mapping[str, Any]], step: int) -> int:
    """How many starts of a job, the newest first, brought no checkpoint beyond what they began with, until one that did.

    `lines`: of starts.jsonl; `step`: the newest checkpoint's, now. A start with a BLAMELESS end does not count; if it has two
    (SLURM ended it, and its shell lived to say more), the first one tells."""
    count, blameless = 0, False
    for line in reversed(lines):
        if "end" in line:
            blameless = line["end"] in BLAMELESS
            continue
        if line["step"] < step:
            break
        count += not blameless
        blameless = False
    return count


def start(run_dir: Path, job: str, nodes: str, most: int, fresh: bool = False) -> str | None:
    """Record a start; None, or why there shall be none: power losses leave no time for an end to say so. `fresh`: once for
    the job, whichever of its starts gets so far, the run that is there is put aside."""
    folder = folder_of(run_dir)
    (folder / OUTCOME).unlink(missing_ok=True)
    if fresh:
        _put_aside_once(run_dir, folder / f"fresh-{job}")
    step = newest_step(run_dir)
    fruitless = fruitless_starts(read_lines(folder, job), step)
    if fruitless >= most:
        return f"gave up: {fruitless} starts in a row ended without a checkpoint after step {step}; see above what ended them"
    append_line(folder, {"at": now(), "job": job, "nodes": nodes, "step": step})
    return None


def _put_aside_once(run_dir: Path, done: Path) -> None:
    from pipeline.run.directory import archive_run, is_empty

    if not done.exists():
        if not is_empty(run_dir):
            archive_run(run_dir.resolve())
        done.touch()


def end(run_dir: Path, job: str, exit_code: int, shown: str, most: int) -> Next:
    """Decide and record the end of a start. `shown`: the job's state, reason and time of preemption as `squeue` says them
    now, with | between; "" if it does not answer, which counts as running: a requeue is then SLURM's to refuse."""
    folder, step = folder_of(run_dir), newest_step(run_dir)
    left = read_object(folder / OUTCOME) if (folder / OUTCOME).exists() else {}
    job_state, job_reason, preempted_at, *_ = [*shown.strip().split("|"), "", "", ""]
    ending = Ending(
        outcome=left.get("outcome", ""),
        reason=left.get("reason", ""),
        exit_code=exit_code,
        job_state=job_state,
        job_reason=job_reason,
        preempted=preempted_at not in ("", "N/A"),
        fruitless=fruitless_starts(read_lines(folder, job), step),
    )
    decided = what_next(ending, most)
    _record_end(run_dir, job, decided.end, decided.why)
    return decided


def terminated(run_dir: Path, job: str, shown: str) -> None:
    """Record that SLURM ends a start: its shell may be killed before it can say how the ranks ended."""
    by_limit = "|TimeLimit|" in shown
    _record_end(run_dir, job, "timeout" if by_limit else "terminated", "ended by SLURM" + (", at its time limit" * by_limit))


def _record_end(run_dir: Path, job: str, name: str, why: str) -> None:
    with contextlib.suppress(OSError):  # what follows is known; a full disk must not make a failure of it
        append_line(folder_of(run_dir), {"at": now(), "job": job, "end": name, "why": why, "step": newest_step(run_dir)})


def _run_start(args: argparse.Namespace) -> int:
    try:
        why_not = start(args.run_dir, args.job, args.nodes, args.most, args.fresh)
    except ValueError as error:  # of --fresh
        why_not = cli.one_line(error)
    if why_not is None:
        return 0
    _record_end(args.run_dir, args.job, "gave up", why_not)
    print(why_not)
    return NO_MORE


def _run_end(args: argparse.Namespace) -> None:
    decided = end(args.run_dir, args.job, args.exit_code, sys.stdin.read(), args.most)
    print(decided.why, file=sys.stderr)
    print(decided.do)


def _run_terminated(args: argparse.Namespace) -> None:
    terminated(args.run_dir, args.job, sys.stdin.read())


def _run_bad_nodes(args: argparse.Namespace) -> int:
    ends = [line for line in read_lines(folder_of(args.run_dir), args.job) if "end" in line]
    before = list(itertools.takewhile(lambda line: line["end"] == "bad node", reversed(ends)))
    why_not = why_no_other_nodes(args, [line["why"] for line in before])
    if why_not is None:
        _record_end(args.run_dir, args.job, "bad node", f"unfit: {args.found or args.nodes}{args.unshared and UNSEEN}")
        return 0
    _record_end(args.run_dir, args.job, "gave up", why_not)
    print(why_not)
    return NO_MORE


def why_no_other_nodes(args: argparse.Namespace, before: Sequence[str]) -> str | None:
    """Why a job does not go on without `args.nodes`, which are unfit, or None. `before`: why it excluded others in the starts
    before, in a row. One other node that does not see the first one's directory may be the one that is wrong; if the next does
    not either, or two at once, it is the path."""
    found = args.found or args.nodes
    the_path = "," in args.nodes or any(UNSEEN in why for why in before)
    if args.unshared and the_path:
        return f"gave up: {args.unshared}"
    if args.why_not:
        return f"gave up: unfit: {found}: the job cannot run without {args.nodes}: not requeued; {args.why_not}"
    if len(before) >= args.most:
        return f"gave up: in {len(before) + 1} starts in a row nodes were unfit, now {found}: it may not be they; see above"
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of job.sh's calls; returns the exit code."""
    parser = cli.Parser(prog="python -m slurm.life", description="Called by slurm/job.sh.")
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=cli.Parser)
    for name, function, options in (
        ("start", _run_start, ("--nodes", "--most")),
        ("end", _run_end, ("--exit-code", "--most")),
        ("terminated", _run_terminated, ()),
        ("bad-nodes", _run_bad_nodes, ("--nodes", "--most")),
    ):
        verb = verbs.add_parser(name)
        verb.set_defaults(run=function)
        verb.add_argument("--run", dest="run_dir", type=Path, required=True)
        verb.add_argument("--job", required=True)
        if name == "start":
            verb.add_argument("--fresh", action="store_true")
        if name == "bad-nodes":
            for option in ("--found", "--unshared", "--why-not"):
                verb.add_argument(option, default="", help="see why_no_other_nodes")
        for option in options:
            verb.add_argument(option, required=True, type=str if option == "--nodes" else int)
    return cli.run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
