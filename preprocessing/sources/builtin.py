"""The built-in corpus: Python's own language reference and docstrings, read as text, never imported."""

import ast
import inspect
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from preprocessing.sources.records import RawDocument
from preprocessing.sources.types import Source, Unit

DOCSTRINGS = "python-docstrings"
REFERENCE = "python-reference"
# Not the library itself: other people's packages, tests, build leftovers, a program's grammar files.
SKIPPED_FOLDERS = frozenset(
    ["site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__", "lib-dynload"]
)


def builtin_sources() -> tuple[Source, Source]:
    """The built-in corpus of this Python: its docstrings (for Books) and its reference (for Wikipedia)."""
    origin = {"kind": "builtin", "version": _version()}
    return (
        Source(DOCSTRINGS, "builtin", (Unit("", 0),), dict(origin)),
        Source(REFERENCE, "builtin", (Unit("", 0),), dict(origin)),
    )


def read_builtin(source: Source) -> list[RawDocument]:
    """All documents of a built-in source. ValueError: the sources were named by another Python."""
    planned = source.origin["version"]
    if planned != _version():
        raise ValueError(f"source {source.name!r}: planned with {planned}, got {_version()}; use one Python for all of a build")
    return _reference_topics() if source.name == REFERENCE else _docstring_books()


def _version() -> str:
    return f"Python {platform.python_version()}"


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


@cache
def _reference_topics() -> list[RawDocument]:
    """One document a topic of the language reference, from the file behind help('import') and its like."""
    path = _library() / "pydoc_data" / "topics.py"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this Python ships no language reference; use --source PATH, not builtin")
    assignment = ast.parse(path.read_bytes()).body[-1]
    assert isinstance(assignment, ast.Assign | ast.AnnAssign)
    assert assignment.value is not None
    topics: dict[str, str] = ast.literal_eval(assignment.value)
    return [RawDocument(REFERENCE, name, name, unwrap(text), f"{REFERENCE}:{name}") for name, text in sorted(topics.items())]


@cache
def _docstring_books() -> list[RawDocument]:
    """One document a top-level module or package: its docstrings, submodules' included, in the files' order."""
    library = _library()
    books: dict[str, list[str]] = {}
    for path in sorted(_modules(library)):
        books.setdefault(path.relative_to(library).parts[0].removesuffix(".py"), []).extend(_docstrings(path))
    return [
        RawDocument(DOCSTRINGS, name, name, "\n".join(map(unwrap, texts)), f"{DOCSTRINGS}:{name}")
        for name, texts in sorted(books.items())
    ]


def _modules(library: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(library):
        top = Path(folder) == library
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS and not (top and name.startswith("config-"))]
        yield from (Path(folder, name) for name in files if name.endswith(".py"))


def _docstrings(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in somebody else's strings
        try:
            pending: list[ast.AST] = [ast.parse(path.read_bytes())]
        except SyntaxError:  # a template, not a module
            return
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text
        for statements in ("finalbody", "orelse", "body"):  # the last one pushed is the next one looked at
            pending.extend(reversed(getattr(node, statements, ())))


_RULE = re.compile(r"[\s=\-~^*+#_.`|]*")
_ITEM = re.compile(r"(?:[*\-•+]|\d+[.)])\s")
_ROLE = re.compile(r":[a-z:]+:`~?([^`]*)`")


def unwrap(text: str) -> str:
    """Hard-wrapped reStructuredText as running text: one paragraph a line.

    Rules (=====) end a heading and go; wrapped lines are joined; list items are paragraphs; indentation, typed-in
    session lines (>>> ...) and the marks of roles and literals go, the words stay.
    """
    lines: list[str] = []
    joins = False  # whether the next line continues the last paragraph
    for raw in inspect.cleandoc(text.expandtabs()).splitlines():
        line = raw.strip()
        if _RULE.fullmatch(line) or line.startswith((">>> ", "... ")):  # a blank line is a rule, too
            joins = False
            continue
        line = _ROLE.sub(r"\1", line).replace("``", "").replace("::", ":")
        if joins and not _ITEM.match(line):
            lines[-1] += " " + line
        else:
            lines.append(_ITEM.sub("", line, count=1) if line[0] in "*-•+" else line)
        joins = True
    return "\n".join(lines)
