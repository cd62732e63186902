"""Parquet files (*.parquet), and Arrow batches as hub datasets hold them: one row, one document.

A file is read by ranges of rows: only the row groups that hold them, only the columns that count, in small batches.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.sources.records import HINT, Limits, Record, document_of, invalid_utf8

BATCH_ROWS = 64
BUFFER_BYTES = 1 << 20


def count_rows(path: Path) -> int:
    """The rows of a parquet file, from its footer. ValueError: it is damaged."""
    try:
        return pq.read_metadata(path).num_rows
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def read_parquet(path: Path, first_row: int, last_row: int, name: str, limits: Limits) -> Iterator[Record]:
    """The records of rows [first_row, last_row). ValueError: no such text column, or a damaged file."""
    try:
        with pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
            columns = wanted_columns(file.schema_arrow, str(path), limits)
            groups, at = _row_groups(file.metadata, first_row, last_row)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=groups, columns=columns):
                begin, end = max(first_row - at, 0), min(last_row - at, batch.num_rows)
                if begin < end:
                    yield from batch_records(batch.slice(begin, end - begin), at + begin, name, limits)
                at += batch.num_rows
                if at >= last_row:
                    break
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None
    if first_row < last_row > at:
        raise ValueError(f"{path}: holds {at} rows, expected {last_row}; the file is damaged: fetch it again")


def wanted_columns(schema: pa.Schema, what: str, limits: Limits) -> list[str]:
    """The columns to read. ValueError: there is no text column of that name, or it holds something else."""
    if limits.column not in schema.names:
        columns = ", ".join(schema.names) or "none"
        raise ValueError(f"{what}: no column {limits.column!r}; columns here: {columns}; name the one with the text: {HINT}")
    wanted = [limits.column, *(c for c in ("id", "title") if c in schema.names and c != limits.column)]
    if twice := [column for column in wanted if schema.names.count(column) > 1]:
        raise ValueError(
            f"{what}: {schema.names.count(twice[0])} columns are called {twice[0]!r}, expected one; rename the others"
        )
    type_ = schema.field(limits.column).type
    values = type_.value_type if pa.types.is_dictionary(type_) else type_
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if not any(is_kind(values) for is_kind in (*kinds, pa.types.is_binary, pa.types.is_large_binary)):
        raise ValueError(f"{what}: column {limits.column!r} is of type {type_}, expected string; name another: {HINT}")
    return wanted


def batch_records(batch: "pa.RecordBatch | pa.Table", first_row: int, name: str, limits: Limits) -> Iterator[Record]:
    """The records of an Arrow batch whose first row is row `first_row` of `name`."""
    values: dict[str, Any] = {column: batch.column(column) for column in batch.schema.names}
    with suppress(UnicodeDecodeError):  # in which row, is seen one by one
        values = {column: array.to_pylist() for column, array in values.items()}
    for row in range(batch.num_rows):
        where = f"{name}@{first_row + row}"
        try:
            record = {column: array[row] for column, array in values.items()}
            record = {column: value.as_py() if isinstance(value, pa.Scalar) else value for column, value in record.items()}
        except UnicodeDecodeError as error:
            yield invalid_utf8(error, where)
        else:
            yield document_of(record, where, limits)


def _row_groups(metadata: pq.FileMetaData, first_row: int, last_row: int) -> tuple[list[int], int]:
    """The row groups that hold rows of the range, and the row at which the first of them starts."""
    groups: list[int] = []
    at, start = 0, first_row
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if at < last_row and at + rows > first_row:
            start = start if groups else at
            groups.append(group)
        at += rows
    return groups, start


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: not a whole parquet file ({' '.join(str(error).split())}); fetch it again")
