"""What a part of the acceptance found, and how it is told."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

PASSED, FAILED, BROKE, LEFT_OUT = "passed", "FAILED", "BROKE", "left out"


@dataclass(frozen=True)
class Check:
    """One figure: what it is of, what was found, what was wanted. `passed` None: a figure to know, not a limit."""

    what: str
    got: str
    wanted: str = ""
    passed: bool | None = None


@dataclass
class Outcome:
    """Of one part. `note`: why it was left out, or what broke it."""

    part: str
    what: str
    seconds: float = 0.0
    checks: list[Check] = field(default_factory=list)
    note: str = ""
    is_broken: bool = False

    @property
    def status(self) -> str:
        """In a word."""
        if self.is_broken:
            return BROKE
        if not self.checks:
            return LEFT_OUT
        return FAILED if any(check.passed is False for check in self.checks) else PASSED


class LeftOut(Exception):
    """A part that this machine cannot do; the message says why."""


def at_most(what: str, value: float, limit: float, shown: str = "{:.3g}") -> Check:
    """A figure with an upper limit."""
    return Check(what, shown.format(value), f"at most {shown.format(limit)}", value <= limit)


def at_least(what: str, value: float, limit: float, shown: str = "{:.3g}") -> Check:
    """A figure with a lower limit."""
    return Check(what, shown.format(value), f"at least {shown.format(limit)}", value >= limit)


def holds(what: str, is_so: bool, got: str = "") -> Check:
    """What is or is not so."""
    return Check(what, got or ("yes" if is_so else "no"), "yes", is_so)


def as_markdown(outcomes: Sequence[Outcome], machine: Sequence[str]) -> str:
    """The table of parts, then every figure."""
    lines = ["# GPU acceptance", "", *machine, "", "| part | | seconds | what |", "|---|---|---|---|"]
    lines += [f"| {o.part} | {o.status} | {o.seconds:.0f} | {_cell(o.note or o.what)} |" for o in outcomes]
    for outcome in outcomes:
        if outcome.checks:
            lines += ["", f"## {outcome.part}", "", "| | found | wanted | |", "|---|---|---|---|"]
            lines += [f"| {c.what} | {_cell(c.got)} | {c.wanted} | {_verdict(c)} |" for c in outcome.checks]
    return "\n".join(lines) + "\n"


def as_values(outcomes: Sequence[Outcome], machine: Sequence[str]) -> dict[str, Any]:
    """For JSON."""
    return {"machine": list(machine), "parts": [{**asdict(outcome), "status": outcome.status} for outcome in outcomes]}


def _verdict(check: Check) -> str:
    return {None: "", True: "ok", False: FAILED}[check.passed]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:300]
