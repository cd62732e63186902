"""The manners of the command line, shared by `python -m preprocessing` and `python -m pipeline`.

A user's mistake (ValueError, OSError) ends in one line on standard error and exit code 2, never in a traceback.
"""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Iterable, Sequence


def nearest(name: str, legal: Iterable[str]) -> str:
    """The remedy for a misspelt name: "did you mean 'lr'? " if one is close, then every legal name."""
    legal = sorted(legal)
    close = difflib.get_close_matches(name, legal, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}legal: {', '.join(legal)}"


class RankError(ValueError):
    """A problem of this process alone: it says so itself, whatever its rank. All other errors are every rank's alike."""


def is_main_process() -> bool:
    """True on the one process that speaks to the user (rank 0 under torchrun, deepspeed or srun)."""
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
    """ArgumentParser whose complaint is one line (no usage block) with exit code 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        if is_main_process():
            print(f"{self.prog}: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Parse argv and call the verb's function, `args.run(args)`; returns the exit code.

    0: done. 2: the input or the system refused (ValueError, OSError), said in one line by the main process; a RankError by
    the process it happened to.
    130: Ctrl-C. Anything else is a bug and keeps its traceback.
    """
    args = parser.parse_args(argv)
    verb: Callable[[argparse.Namespace], int | None] = args.run
    try:
        return verb(args) or 0
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # `… | head`: the reader has seen enough
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (the interpreter's last flush must not fail)
            return 0
        if is_main_process() or isinstance(error, RankError):
            print(f"{parser.prog}: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if is_main_process():
            print(f"{parser.prog}: stopped", file=sys.stderr)
        return 130
