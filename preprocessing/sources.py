"""Where documents come from: local JSON-lines files, and the built-in corpus.

Local files have the columns of the Hugging Face datasets wikimedia/wikipedia (id, url, title, text) and
bookcorpusopen (title, text); only `text` is needed. They are read line by line: memory is bounded by the largest
document. The built-in corpus is Python's own language reference and docstrings, read as text, never imported.
"""

import ast
import glob
import gzip
import inspect
import itertools
import json
import platform
import re
import sysconfig
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from preprocessing.manifest import file_sha256

BUILTIN = "builtin"
# Not the library itself: other people's packages, tests, build leftovers, a program's grammar files.
SKIPPED_FOLDERS = frozenset(
    ["site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__", "lib-dynload"]
)


class RawDocument(NamedTuple):
    """A document as its source holds it. `where` says file and line, for messages."""

    source: str
    id: str
    title: str
    text: str
    where: str


@dataclass(frozen=True)
class Source:
    """A named stream of documents that can be read again and again, always in the same order."""

    name: str
    documents: Callable[[], Iterator[RawDocument]]
    files: tuple[dict[str, Any], ...] = field(default=())
    version: str = ""


def parse_sources(arguments: list[str], max_document_mb: float) -> list[Source]:
    """The sources named on the command line ("builtin", "PATH", "LABEL=PATH"; PATH may be a glob), sorted by name.

    Sorted, so that the order on the command line changes nothing. Hashes every file. ValueError or FileNotFoundError:
    a pattern that matches nothing, a label given twice, a file of another kind.
    """
    sources: list[Source] = []
    for argument in arguments:
        if argument == BUILTIN:
            sources += builtin_sources()
        else:
            sources.append(_local_source(argument, max_document_mb))
    sources.sort(key=lambda source: source.name)
    for one, other in itertools.pairwise(sources):
        if one.name == other.name:
            raise ValueError(f"--source: two sources are called {one.name!r}; give one a label: --source LABEL=PATH")
    if not sources:
        raise ValueError("no source; expected --source builtin or --source LABEL=PATH")
    return sources


def _local_source(argument: str, max_document_mb: float) -> Source:
    label, separator, pattern = argument.partition("=")
    if not separator or "/" in label or Path(argument).exists():
        label, pattern = "", argument
    paths = [Path(pattern)] if Path(pattern).is_file() else sorted(map(Path, glob.glob(pattern, recursive=True)))
    paths = [path for path in paths if path.is_file()]
    if not paths:
        raise FileNotFoundError(f"--source {argument}: no file matches {pattern!r}; expected 'builtin' or *.jsonl[.gz]")
    for path in paths:
        if not path.name.endswith((".jsonl", ".jsonl.gz")):
            raise ValueError(f"{path}: expected a file named *.jsonl or *.jsonl.gz (one JSON object a line)")
    name = label or paths[0].name.split(".jsonl")[0]
    limit_bytes = int(max_document_mb * 1_000_000)
    # The file's name, not its path: a corpus is the same wherever its sources lay.
    files = tuple({"path": p.name, "bytes": p.stat().st_size, "sha256": file_sha256(p)} for p in paths)

    def documents() -> Iterator[RawDocument]:
        for path in paths:
            yield from read_jsonl(path, name, limit_bytes)

    return Source(name=name, documents=documents, files=files)


def read_jsonl(path: Path, source: str, limit_bytes: int) -> Iterator[RawDocument]:
    """The documents of one *.jsonl or *.jsonl.gz file. ValueError, naming file and line, for anything wrong in it."""
    with gzip.open(path, "rb") if path.name.endswith(".gz") else open(path, "rb") as file:
        number = 0
        while True:
            number += 1
            where = f"{path}:{number}"
            try:
                line = _read_line(file, limit_bytes, where)  # type: ignore[arg-type]
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(
                    f"{where}: broken gzip file ({error}); {path.stat().st_size} bytes are here: fetch it again"
                ) from None
            if not line:
                return
            if not line.isspace():
                yield _parse_line(line, source, where, f"{path.name}:{number}")


def _read_line(file: IO[bytes], limit_bytes: int, where: str) -> bytes:
    line = file.readline(limit_bytes + 2)  # a line of exactly limit_bytes may end in \r\n
    if len(line.rstrip(b"\r\n")) <= limit_bytes:
        return line
    size = len(line)
    while not line.endswith(b"\n") and (line := file.readline(1 << 20)):  # its size, in bounded memory
        size += len(line)
    raise ValueError(
        f"{where}: a document of {size / 1e6:.1f} MB, expected at most {limit_bytes / 1e6:g} MB; "
        f"split it, or raise --max-document-mb"
    )


def _parse_line(line: bytes, source: str, where: str, default_id: str) -> RawDocument:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: invalid UTF-8 (byte 0x{line[error.start]:02x} at {error.start}); convert the file to UTF-8"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({error}); expected one JSON object a line") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a JSON {type(row).__name__}, expected an object with a 'text' column")
    if "text" not in row:
        columns = ", ".join(sorted(map(str, row))) or "none"
        raise ValueError(f"{where}: no 'text' column; columns here: {columns}; rename the one that holds the text")
    if not isinstance(row["text"], str):
        raise ValueError(f"{where}: 'text' is of type {type(row['text']).__name__}, expected a string")
    title, id_ = row.get("title"), row.get("id")
    return RawDocument(source, _plain(default_id if id_ is None else id_), _plain(title or ""), row["text"], where)


def _plain(value: object) -> str:
    """A title or id as text that UTF-8 can hold."""
    return str(value).encode(errors="replace").decode()


def builtin_sources() -> list[Source]:
    """The built-in corpus of this Python: its reference (for Wikipedia) and its docstrings (for Books)."""
    version = f"Python {platform.python_version()}"
    return [
        Source("python-docstrings", lambda: iter(_docstring_books()), version=version),
        Source("python-reference", lambda: iter(_reference_topics()), version=version),
    ]


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
    return [
        RawDocument("python-reference", name, name, unwrap(text), f"{path}:{name}") for name, text in sorted(topics.items())
    ]


@cache
def _docstring_books() -> list[RawDocument]:
    """One document a top-level module or package: its docstrings, submodules' included, in the files' order."""
    library = _library()
    books: dict[str, list[str]] = {}
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if SKIPPED_FOLDERS.isdisjoint(relative.parts) and not relative.parts[0].startswith("config-"):
            books.setdefault(relative.parts[0].removesuffix(".py"), []).extend(_docstrings(path))
    return [
        RawDocument("python-docstrings", name, name, "\n".join(map(unwrap, texts)), str(library / name))
        for name, texts in sorted(books.items())
    ]


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
        pending.extend(child for child in reversed(list(ast.iter_child_nodes(node))) if isinstance(child, ast.stmt))


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
