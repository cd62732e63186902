"""What an experiment has found, and the three files that say so: table.md, picture.png, result.json."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.base.files import write_whole
from preprocessing.base.json_file import write_object

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE, PICTURE, RESULT = "table.md", "picture.png", "result.json"
Cell = str | int | float | None


@dataclass(frozen=True)
class Found:
    """One table, one picture, one paragraph, and the facts behind them.

    `settings`: every setting that was tried, on either side of a comparison, those that lost included. `measured`: all figures,
    of which the table shows some; what is not finite becomes null in the file. `draw` puts the picture on a figure.
    """

    finding: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    seeds: Sequence[int]
    settings: Mapping[str, Any]
    measured: Mapping[str, Any]
    draw: "Callable[[Figure], object]"
    size_inches: tuple[float, float] = (9.0, 3.4)


def markdown(found: Found) -> str:
    """The table, in Markdown."""
    lines = [found.columns, ["---"] * len(found.columns), *([_text(cell) for cell in row] for row in found.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(found: Found, out: Path, about: Mapping[str, Any], png: Path | None = None) -> None:
    """Put the three files into `out`, each whole or absent, the JSON last; the picture at `png`, too, where that is given.

    `about`: the experiment's name, whether it was quick, what it ran on; it stands first in the JSON.
    """
    from pipeline.run.directory import versions
    from preprocessing.base.plots import write_png

    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / TABLE, f"{markdown(found)}\n\n{found.finding}\n".encode())
    for path in filter(None, (out / PICTURE, png)):
        write_png(path, found.size_inches, found.draw)
    table = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    parts = {"seeds": list(found.seeds), "settings": found.settings, "measured": found.measured, "table": table}
    result = {**about, "finding": found.finding, "versions": versions(), **parts}
    write_object(out / RESULT, plain(result))


def plain(value: Any) -> Any:
    """The same for strict JSON: numbers that are not finite as None, keys as text, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else cell
