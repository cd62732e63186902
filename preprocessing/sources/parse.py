"""What `--source` says, in any of the forms that types.py lists, resolved to files, a dataset's commit, or built-in text."""

import itertools
import os.path
import re
from pathlib import Path

from preprocessing.sources.builtin import builtin_sources
from preprocessing.sources.local import local_source
from preprocessing.sources.types import BUILTIN, LEGAL, Source

WIKIPEDIA_ID = "wikimedia/wikipedia"
WIKIPEDIA_CONFIG = "20231101.en"
BOOKS_ID = "lucadiliello/bookcorpusopen"
"""BookCorpusOpen, 17,868 whole books in parquet with `title` and `text`. The usual `bookcorpus` is a script, which
`datasets` runs no more, and its parquet copies (rojagtap/bookcorpus) are 74 million rows of one sentence: no documents."""

_LABELLED = re.compile(r"([^/:=]+)=(.+)", re.DOTALL)
_WIKIPEDIA = re.compile(r"wikipedia(?::([^@#]+))?(@[^#]+)?")
_HUB = re.compile(r"([\w.-]+(?:/[\w.-]+)?|\.{0,2}/.+?)(?::([^@#:]+))?(?:@([^#]+))?(?:#(.+))?", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]\w*:")


def parse_sources(arguments: list[str], *, streaming: bool = False) -> tuple[Source, ...]:
    """The sources named on the command line, sorted by name, so that the order on the command line changes nothing.

    Hashes every local file; resolves every hub dataset to a commit. ValueError or OSError, one line: an unknown form,
    a pattern that matches nothing, a label given twice, files of another kind, a dataset that cannot be had.
    """
    sources: list[Source] = []
    for argument in arguments:
        sources += _parse(argument, streaming)
    sources.sort(key=lambda source: source.name)
    for one, other in itertools.pairwise(sources):
        if one.name == other.name:
            raise ValueError(f"--source: two sources are called {one.name!r}; give one a label: --source LABEL=PATH")
    if not sources:
        raise ValueError(f"no source; {LEGAL}")
    return tuple(sources)


def _parse(argument: str, streaming: bool) -> tuple[Source, ...]:
    labelled = None if os.path.exists(argument) else _LABELLED.fullmatch(argument)
    label, target = (labelled[1], labelled[2]) if labelled else ("", argument)
    if os.path.exists(target):
        return (local_source(label, target),)
    if target == BUILTIN:
        if label:
            raise ValueError(f"--source {argument}: builtin is two sources with names of their own; leave {label}= out")
        return builtin_sources()
    if wikipedia := _WIKIPEDIA.fullmatch(target):
        config, revision = wikipedia[1] or WIKIPEDIA_CONFIG, wikipedia[2] or ""
        return (_hub(label or "wikipedia", f"{WIKIPEDIA_ID}:{config}{revision}", argument, streaming),)
    if target == "books" or target.startswith("books:"):
        return (_hub(label or "books", target.removeprefix("books").removeprefix(":") or BOOKS_ID, argument, streaming),)
    if target.startswith("hf:"):
        return (_hub(label, target.removeprefix("hf:"), argument, streaming),)
    if target.startswith("sentences:"):
        return (local_source(label, target.removeprefix("sentences:"), sentences=True),)
    if not target or _WORD.match(target):
        raise ValueError(f"--source {argument}: no such source; {LEGAL}")
    path, _, column = target.rpartition("#")
    return (local_source(label, path, column=column) if path and column else local_source(label, target),)


def _hub(label: str, dataset: str, argument: str, streaming: bool) -> Source:
    from preprocessing.sources.hub import hub_source  # not above: pyarrow comes with it

    form = _HUB.fullmatch(dataset)
    if os.path.isdir(dataset):  # whatever characters its name has
        parts: tuple[str, str, str, str] = (dataset, "", "", "")
    elif form:
        parts = (form[1], form[2] or "", form[3] or "", form[4] or "")
    else:
        raise ValueError(f"--source {argument}: {dataset!r} names no dataset; {LEGAL}")
    id_, config, revision, column = parts
    name = label or Path(id_).name
    return hub_source(name, id_, config=config, revision=revision, column=column or "text", streaming=streaming)
