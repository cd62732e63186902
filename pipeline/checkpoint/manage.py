"""What `python -m pipeline checkpoint` does: list, verify, convert, prune. No process group, no GPU."""

import datetime
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint import retention
from pipeline.checkpoint.layout import CHECKPOINTS, dangling_latest, step_directory
from pipeline.checkpoint.reader import Checkpoint
from pipeline.checkpoint.resume import newest
from pipeline.checkpoint.snapshot import PARAM
from pipeline.checkpoint.tensor_file import write_tensors

AGES = ((86400 * 2, 86400, "d"), (7200, 3600, "h"), (120, 60, "min"), (0, 1, "s"))  # from, unit, its name


@dataclass(frozen=True)
class Row:
    """One checkpoint of a run, or what carries the name of one. Only step and problem are known of one that is not whole."""

    step: int
    problem: str | None
    size_bytes: int | None = None
    world_size: int | None = None
    zero_stage: int | None = None
    precision: str | None = None
    saved_at: str | None = None


def rows(run_dir: Path, read_all: bool = False) -> list[Row]:
    """The checkpoints of a run, newest first: manifests and sizes are checked, with `read_all` every byte. ValueError if it has
    none."""
    directories = retention.steps_on_disk(_run(run_dir))
    if not directories:
        raise ValueError(f"{run_dir} has no checkpoint")
    found = [_row(step, directory, read_all) for step, directory in directories.items()]
    left = retention.steps_on_disk(_run(run_dir))  # a run that goes on may delete old ones meanwhile
    return [row for row in found if row.step in left]


def _run(path: Path) -> Path:
    """The run directory, given it or its checkpoints/."""
    run_dir = path.parent if path.name == CHECKPOINTS else path
    if not (run_dir / CHECKPOINTS).is_dir():
        raise ValueError(f"{path}: no {CHECKPOINTS}/ in it: give the --run of a `pipeline pretrain`")
    return run_dir


def _row(step: int, directory: Path, read_all: bool) -> Row:
    try:
        found = Checkpoint(directory)
        if read_all:
            found.verify()
    except (ValueError, OSError) as error:
        return Row(step, str(error))
    of = found.manifest
    return Row(step, None, found.size_bytes, found.world_size, of["zero_stage"], of["precision"], of["saved_at"])


def table(found: Sequence[Row], run_dir: Path, whole: str) -> str:
    """The rows as text; `whole` is what to call one without a problem."""
    now = datetime.datetime.now(datetime.UTC)
    lines = [f"{'step':>10}  {'size':>9}  {'ranks':>5}  {'ZeRO':>4}  {'precision':>9}  {'age':>7}  state"]
    for row in found:
        cells = (_size(row.size_bytes), row.world_size, row.zero_stage, row.precision, _age(row.saved_at, now))
        size, ranks, stage, precision, age = ("-" if cell is None else str(cell) for cell in cells)
        state = whole if row.problem is None else f"NOT VALID: {row.problem}"
        lines.append(f"{row.step:>10,}  {size:>9}  {ranks:>5}  {stage:>4}  {precision:>9}  {age:>7}  {state}")
    dangling = dangling_latest(_run(run_dir))
    return "\n".join(lines + ([f"latest names {dangling!r}, which is not there"] if dangling else []))


def _size(size_bytes: int | None) -> str | None:
    if size_bytes is None:
        return None
    power = min(4, int(math.log(max(size_bytes, 1), 1000)))
    return f"{size_bytes / 1000**power:.{2 if power else 0}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def _age(saved_at: str | None, now: datetime.datetime) -> str | None:
    if saved_at is None:
        return None
    age_s = (now - datetime.datetime.fromisoformat(saved_at)).total_seconds()
    return next((f"{age_s / unit:.0f} {name}" for least, unit, name in AGES if age_s >= least), "0 s")


def prune(run_dir: Path, keep_last: int, keep_every_steps: int, dry_run: bool) -> list[Path]:
    """Delete what neither rule keeps; returns the directories. Only whole checkpoints count as kept, every byte of these read;
    one that is not whole is left to its owner. ValueError for numbers that keep nothing."""
    if keep_last < 1:
        raise ValueError(f"--keep-last {keep_last}: expected at least 1, the one that the run goes on from")
    directories = retention.steps_on_disk(_run(run_dir))
    whole: list[int] = []
    for step, directory in directories.items():  # newest first; older than the last ones to keep, none needs to be read
        if len(whole) >= keep_last or _row(step, directory, read_all=True).problem is None:
            whole.append(step)
    doomed = [directories[step] for step in retention.surplus(whole, keep_last, keep_every_steps)]
    for directory in doomed:
        if not dry_run:
            retention.delete(directory)
    return doomed


def _whole(run_dir: Path, step: int) -> Checkpoint | None:
    directory = step_directory(run_dir, step)
    if not directory.is_dir():
        return None
    found = Checkpoint(directory)
    found.verify()
    return found


def convert(run_dir: Path, step: int | None, out: Path, complain: Callable[[str], None]) -> Checkpoint:
    """Write the weights of a checkpoint (None: the newest whole one) into one safetensors file, whole float32 tensors under
    their parameters' names, whatever number of ranks saved them. Its metadata hold the step, the configuration and the corpus.
    ValueError if `out` exists, or if there is no such whole checkpoint."""
    if out.exists():
        raise ValueError(f"--out {out} exists: give a new name")
    if (_run(run_dir) / CHECKPOINTS).resolve() in out.resolve().parents:
        raise ValueError(f"--out {out}: a foreign file in a checkpoint makes it invalid; give a place outside {CHECKPOINTS}/")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: no directory {out.parent}; make it first")
    found = newest(_run(run_dir), complain) if step is None else _whole(_run(run_dir), step)
    if found is None:
        raise ValueError(f"{run_dir} has no checkpoint{'' if step is None else f' of step {step}'}")
    made_from = found.manifest["made_from"]
    metadata = {
        "format": "pt",
        "step": str(found.step),
        "config": json.dumps(made_from["config"]),
        "corpus_sha256": made_from["corpus_sha256"],
        "tokenizer_sha256": made_from["tokenizer_sha256"],
    }
    write_tensors(out, {name: found.whole(PARAM, name) for name in found.manifest["parameters"]}, metadata)
    return found
