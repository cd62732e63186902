"""The manners of the command line, shared by `python -m preprocessing` and `python -m pipeline`.

A user's mistake (ValueError, OSError) ends in one line on standard error and exit code 2, never in a traceback. Who says it:
every process, but of a collective program, whose ranks all fail alike, rank 0 alone.
"""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Iterable, Sequence

from preprocessing.base import streams


def nearest(name: str, legal: Iterable[str]) -> str:
    """The remedy for a misspelt name: "did you mean 'lr'? " if one is close, then every legal name."""
    legal = sorted(legal)
    close = difflib.get_close_matches(name, legal, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}legal: {', '.join(legal)}"


class RankError(ValueError):
    """A problem of this process alone: it says so itself, whatever its rank. All other errors are every rank's alike."""


def is_main_process() -> bool:
    """True on the one process of a collective program that speaks to the user (rank 0 under torchrun, deepspeed or srun)."""
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    return rank == "0" or not rank.isdigit()


def one_line(error: BaseException) -> str:
    """An exception as one readable line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())


class Parser(argparse.ArgumentParser):
    """ArgumentParser whose complaint is one line (no usage block) with exit code 2.

    `collective`: it is the command line of ranks that work together, of which rank 0 speaks for all.
    `work_counts`: what counts is what the program does (a run, a corpus), not what it prints. It does not fail where its output
    goes nowhere; a program whose output is its work does.
    """

    collective = False

    def is_for(self, collective: bool = False, work_counts: bool = False) -> None:
        """Set both (above), for this parser's own complaints and for `run`."""
        self.collective = collective
        self.set_defaults(collective=collective, work_counts=work_counts)

    def error(self, message: str) -> None:  # type: ignore[override]
        if is_main_process() or not self.collective:
            _complain(f"{self.prog}: error: {message} (see {self.prog} --help)")
        raise SystemExit(2)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Parse argv and call the verb's function, `args.run(args)`; returns the exit code.

    0: done. 2: the input or the system refused (ValueError, OSError), said in one line by every process, of a collective
    program by the main one, a RankError by the process it happened to.
    130: Ctrl-C. Anything else is a bug and keeps its traceback.
    """
    streams.settle()
    with streams.unheard("stdout"):  # --help
        args = parser.parse_args(argv)
    verb: Callable[[argparse.Namespace], int | None] = args.run
    speaks = is_main_process() or not getattr(args, "collective", False)
    try:
        if getattr(args, "work_counts", False):
            return _work(verb, args, parser.prog if speaks else None)
        code = verb(args) or 0
        unwritten = streams.flush_or_drop("stdout")
        if unwritten is not None:
            raise unwritten
        return code
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # `… | head`: the reader has seen enough
            streams.drop("stdout")
            return 0
        streams.flush_or_drop("stdout")
        if speaks or isinstance(error, RankError):
            _complain(f"{parser.prog}: error: {one_line(error)}")
        return 2
    except KeyboardInterrupt:
        if speaks:
            _complain(f"{parser.prog}: stopped")
        return 130


def _work(verb: Callable[[argparse.Namespace], int | None], args: argparse.Namespace, prog: str | None) -> int:
    """The verb's exit code, whatever becomes of its output; `prog`: who says that some of it is lost (None: nobody)."""
    with streams.unheard("stdout", "stderr") as lost:
        code = verb(args) or 0
    if prog and lost and not isinstance(lost[0], BrokenPipeError):
        _complain(f"{prog}: the work is done, but not all of its output could be written: {one_line(lost[0])}")
    return code


def _complain(line: str) -> None:
    """One line on standard error, if that takes it."""
    with streams.unheard("stderr"):
        print(line, file=sys.stderr)
