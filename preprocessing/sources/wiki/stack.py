"""The stack of what is open on a page while it is scanned, and the text that gathers in it."""

from collections import Counter

from preprocessing.sources.wiki.leftovers import NAMES, unclosed
from preprocessing.sources.wiki.marks import GAP, KEEP, SEAM

DEEPEST = 100
"""More open marks than this are text: MediaWiki itself gives up at 40 templates inside one another."""


class Open:
    """Something that was opened: `parts` between its bars, each a list of strings; what was removed inside it."""

    __slots__ = ("counted", "kind", "parts", "templates", "width")

    def __init__(self, kind: str, width: int = 2) -> None:
        self.kind = kind  # "page", "{{", "[[", "{|", "-{"
        self.width = width  # braces or brackets
        self.parts: list[list[str]] = [[]]
        self.templates: Counter[str] = Counter()
        self.counted: Counter[str] = Counter()

    def texts(self) -> list[str]:
        """The parts, joined."""
        return ["".join(part) for part in self.parts]


class Stack:
    """What is open, the page itself at the bottom. Text is added to the last part of what is on top.
    `kept` gets what KEEP numbers stand for."""

    def __init__(self, kept: list[str]) -> None:
        self.open = [Open("page")]
        self._kept = kept

    @property
    def top(self) -> Open:
        """What was opened last; the page if nothing is open."""
        return self.open[-1]

    def add(self, text: str) -> None:
        self.open[-1].parts[-1].append(text)

    def show(self, text: str) -> None:
        """Add what a link or template shows. Inside another template its "=" names no argument."""
        self.add(text.replace("=", "&#61;") if self.open[-1].kind == "{{" else text)

    def drop(self, kind: str, mark: str = GAP) -> None:
        """Leave a mark for something that is not shown."""
        top = self.open[-1]
        top.counted[kind] += 1
        top.parts[-1].append(mark)

    def keep(self, text: str) -> None:
        self._kept.append(text)
        self.add(f"{KEEP}{len(self._kept) - 1}{KEEP}")

    def push(self, opened: Open) -> None:
        if len(self.open) > DEEPEST:
            self.add(SEAM)
        else:
            self.open.append(opened)

    def into(self, above: Open) -> None:
        """Count in what is open now what was removed inside something shown."""
        top = self.open[-1]
        for name in ("templates", "counted"):
            small, large = sorted((getattr(above, name), getattr(top, name)), key=len)
            if small:
                large.update(small)
            setattr(top, name, large)

    def flush(self, depth: int) -> None:
        """Put everything from stack[depth] on back as text: it is never closed."""
        opened = self.open[depth:]
        del self.open[depth:]
        for one in opened:
            self.into(one)
            self.open[-1].counted[f"{NAMES[one.kind]} without an end"] += 1
            self.add(unclosed(one.kind, one.texts()))

    def depth_of(self, kind: str) -> int:
        """Where the innermost open one of a kind is, with nothing but links above it; 0: nowhere."""
        for depth in range(len(self.open) - 1, 0, -1):
            if self.open[depth].kind == kind:
                return depth
            if self.open[depth].kind not in ("[[", "-{"):
                return 0
        return 0
