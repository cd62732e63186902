"""Datasets of the Hugging Face hub (or of its cache, or a local directory) as a source: pinned, then read by rows.

Map style, rows are read by ranges; streamed, a data file ("shard") is read from its start to its end. No dataset's code is
ever run.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preprocessing.sources.hub_files import SPLIT, Pinned, pin, schema_clash
from preprocessing.sources.parquet import batch_records, wanted_columns
from preprocessing.sources.records import Limits, Record
from preprocessing.sources.types import Source, Unit

BATCH_ROWS = 64
REMEDY = (
    "check the name and the network; or load it once where the hub can be reached, with HF_HOME on a disk that this machine "
    "sees, too, and set HF_HUB_OFFLINE=1 here"
)


def hub_source(name: str, id_: str, *, config: str, revision: str, column: str, streaming: bool) -> Source:
    """A dataset's split "train" as a source, pinned. ValueError, OSError, one line: it cannot be had, or has no such column.

    Not streaming, this downloads and prepares the dataset (once; `datasets` keeps it in HF_HOME).
    """
    with _one_line(id_):
        pinned = pin(id_, config, revision)
        data = _load(pinned, streaming, id_)
        if data.features is not None:
            wanted_columns(data.features.arrow_schema, f"dataset {id_}", Limits(name, column, 0))
        mtime_ns = pinned.touched()
        if streaming:
            count = data.num_shards
            units = tuple(Unit(f"shard {i + 1} of {count}", 0, mtime_ns=mtime_ns) for i in range(count))
        else:
            units = (Unit("shard 1 of 1", data.data.nbytes, len(data), mtime_ns=mtime_ns),)
        if pinned.declared_rows and not streaming and pinned.declared_rows != len(data):
            raise ValueError(
                f"dataset {id_}: {len(data)} rows, expected {pinned.declared_rows} as its card declares; files are missing: "
                f"download it again"
            )
        origin: dict[str, Any] = {
            "kind": "hub",
            "id": Path(id_).absolute().name if pinned.files else id_,
            "config": pinned.config,
            "revision": pinned.content_sha256() if pinned.files else pinned.revision,
            "column": column,
            "split": SPLIT,
            "streaming": streaming,
        }
    location = str(Path(id_).absolute()) if pinned.files else id_
    return Source(name, "hub", units, origin, location, pinned.declared_rows)


class HubDataset:
    """A planned hub source, loaded. ValueError, OSError, one line: it cannot be had, or is not the planned one any more."""

    def __init__(self, source: Source) -> None:
        self._id = source.location
        self._streaming: bool = source.origin["streaming"]
        self._unit_names = source.unit_names()
        revision = source.origin["revision"]
        directory = Path(source.location).is_absolute()
        with _one_line(self._id):
            pinned = pin(source.location, source.origin["config"], "" if directory else revision)
            touched = directory and pinned.touched() != source.units[0].mtime_ns
            found: str | int = pinned.content_sha256() if touched else pinned.revision or revision
            if found != revision:
                raise ValueError(f"dataset {self._id}: is {found}, expected {revision} as planned; start again")
            self._data = _load(pinned, self._streaming, self._id)
            planned = len(source.units) if self._streaming else source.units[0].rows
            found = self._data.num_shards if self._streaming else len(self._data)
            if found != planned:
                what = "data files" if self._streaming else "rows"
                raise ValueError(f"dataset {self._id}: {found} {what}, expected {planned} as planned; start again")

    def read(self, index: int, rows: tuple[int, int], limits: Limits) -> Generator[Record, None, tuple[int, int]]:
        """The records of a range of rows (streamed: of all of a shard); returns the range."""
        first, last = rows  # streamed: (0, 0), how many there are is seen at the end
        at = first
        with _one_line(self._id):
            for batch in self._shard(index) if self._streaming else self._rows(first, last, limits):
                columns = wanted_columns(batch.schema, f"dataset {self._id}", limits)
                yield from batch_records(batch.select(columns), at, self._unit_names[index], limits)
                at += batch.num_rows
        return first, at

    def _shard(self, index: int) -> Iterator[Any]:
        shard = self._data.shard(num_shards=self._data.num_shards, index=index)
        return shard.with_format("arrow").iter(batch_size=BATCH_ROWS)

    def _rows(self, first: int, last: int, limits: Limits) -> Iterator[Any]:
        schema = self._data.features.arrow_schema
        data = self._data.select_columns(wanted_columns(schema, f"dataset {self._id}", limits)).with_format("arrow")
        for at in range(first, last, BATCH_ROWS):
            yield data[at : min(at + BATCH_ROWS, last)]


def _load(pinned: Pinned, streaming: bool, what: str) -> Any:
    """What datasets.load_dataset does, with the builder that is pinned."""
    if streaming:
        splits = pinned.builder.as_streaming_dataset()
    else:
        try:
            pinned.builder.download_and_prepare()
        except Exception as error:
            if clash := schema_clash(pinned.builder):
                raise ValueError(
                    f"dataset {what}: {clash}; a set's files need the same columns: convert one, or give each its own --source"
                ) from error
            raise
        splits = pinned.builder.as_dataset()
    if SPLIT not in splits:
        raise ValueError(f"no split {SPLIT!r}; splits here: {', '.join(map(str, splits))}")
    return splits[SPLIT]


@contextmanager
def _one_line(id_: str) -> Iterator[None]:
    """Whatever `datasets` and the network under it raise, as one line with a remedy."""
    try:
        yield
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None and "dataset" in type(cause).__name__.lower():  # "an error occurred": which one?
            cause = cause.__cause__
        text = " ".join(str(cause).split())
        if not text.startswith("dataset "):
            remedy = "mend its files" if Path(id_).is_dir() else REMEDY
            text = f"dataset {id_}: {text} ({type(cause).__name__}); {remedy}"
        elif isinstance(error, FileNotFoundError):
            text = f"{text}; {REMEDY}"
        raise (OSError if isinstance(error, OSError) else ValueError)(text) from error
