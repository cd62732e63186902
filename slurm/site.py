"""The settings of a site: slurm/site.env, lines of KEY=VALUE, which --site KEY=VALUE goes over.

They are read here, not by a shell: nothing in the file is executed at submission. SETUP lines run in the job.
"""

import dataclasses
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocessing.base.command_line import nearest
from slurm.sbatch_options import check_options

SITE_FILE = Path(__file__).parent / "site.env"
_CONSTRAINT = re.compile(r"[\w.,:@/+=\[\]|&()*!-]+")
_WORD = re.compile(r"[\w.,:@/+=\[\]-]+")
_LIMIT = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


@dataclass(frozen=True)
class Site:
    """What slurm/site.env.example explains, by the same names in lower case. "" and 0: not given."""

    account: str = ""
    partition: str = ""
    qos: str = ""
    constraint: str = ""
    time: str = "24:00:00"
    nodes: int = 1
    gpus_per_node: int = 8
    gpu_option: str = "gpus-per-node"
    gpu_type: str = ""
    ranks_per_node: int = 0
    cpus_per_rank: int = 0
    memory_per_node: str = ""
    cpu_partition: str = ""
    cpu_time: str = "12:00:00"
    cpus: int = 0
    cpu_memory: str = ""
    sbatch_options: str = ""
    setup: tuple[str, ...] = ()
    container: str = ""
    python: str = ""
    warning_s: int = 300
    most_fruitless_starts: int = 3
    heartbeat_s: int = 300
    tflops_per_gpu: float = 0.0

    def __post_init__(self) -> None:
        _check(self)

    @property
    def ranks(self) -> int:
        """Processes on each node: one a GPU, unless RANKS_PER_NODE says otherwise."""
        return self.ranks_per_node or self.gpus_per_node

    @property
    def world_size(self) -> int:
        """Processes in all."""
        return self.nodes * self.ranks


_SHELL = {"sbatch_options", "setup", "container", "python"}  # whose values are not one word of an sbatch option


def read_site(file: Path | None, overrides: Sequence[str] = ()) -> Site:
    """The settings of `file` (None: slurm/site.env, if it is there) under KEY=VALUE `overrides`. ValueError on a bad line."""
    path = SITE_FILE if file is None else file
    values: dict[str, object] = {}
    if file is not None or path.exists():
        try:
            lines = enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not a text file: {error}") from error
        values = _values((f"{path}:{number}", line) for number, line in lines)
    values.update(_values((f"--site {override}", override) for override in overrides))
    return Site(**values)  # type: ignore[arg-type]  # _values has converted them


def _values(lines: Iterable[tuple[str, str]]) -> dict[str, object]:
    fields = {field.name: field.type for field in dataclasses.fields(Site)}
    values: dict[str, object] = {}
    for where, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, name, text = _setting(where, line, fields)
        if name == "setup":
            values[name] = (*values.get(name, ()), text)  # type: ignore[misc]  # a tuple
        elif name in values:
            raise ValueError(f"{where}: {key} is there twice; keep one")
        else:
            values[name] = _converted(where, key, text, fields[name])
    return values


def _setting(where: str, line: str, fields: dict[str, object]) -> tuple[str, str, str]:
    """Key, field and value of a line."""
    key, equals, rest = line.strip().partition("=")
    name = key.lower()
    if not equals or key != key.upper() or name not in fields:
        legal = nearest(key.upper(), (field.upper() for field in fields))
        raise ValueError(f"{where}: got {line.strip()!r}, expected KEY=VALUE; {legal}")
    try:
        words = shlex.split(rest, comments=True)
    except ValueError as error:
        raise ValueError(f"{where}: {key}: {error} in {rest!r}; quote the value as in a shell") from None
    if len(words) > 1:
        raise ValueError(f"{where}: {key} has {len(words)} words, expected one value: put it in quotes")
    return key, name, words[0] if words else ""


def _converted(where: str, key: str, text: str, kind: object) -> object:
    if kind is str:
        return text
    try:
        return float(text) if kind is float else int(text)
    except ValueError:
        raise ValueError(f"{where}: {key}={text!r}, expected a {'number' if kind is float else 'whole number'}") from None


def _check(site: Site) -> None:
    for field in dataclasses.fields(site):
        value, key = getattr(site, field.name), field.name.upper()
        word = _CONSTRAINT if field.name == "constraint" else _WORD
        if isinstance(value, str) and field.name not in _SHELL and value and not word.fullmatch(value):
            raise ValueError(f"{key}={value!r}: expected a word of letters, digits and . , : @ / + = - _ [ ]")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key}={value}: expected a finite number")
        if isinstance(value, (int, float)) and value < 0:
            raise ValueError(f"{key}={value}: expected 0 or more")
    if site.nodes < 1 or site.ranks < 1:
        raise ValueError(
            f"{site.nodes} nodes of {site.ranks} ranks: expected at least one; without GPUs say RANKS_PER_NODE=N, too"
        )
    if site.gpu_option not in ("gpus-per-node", "gres"):
        raise ValueError(f"GPU_OPTION={site.gpu_option!r}: expected gpus-per-node or gres")
    if site.most_fruitless_starts < 1 or site.heartbeat_s < 1 or site.warning_s < 1:
        raise ValueError("MOST_FRUITLESS_STARTS, HEARTBEAT_S and WARNING_S: expected at least 1")
    if 2 * site.warning_s > limit_s(site.time):
        raise ValueError(
            f"WARNING_S={site.warning_s} is more than half of TIME={site.time}: the job would do little but start and save"
        )
    limit_s(site.cpu_time)
    options_of(site)
    _words("CONTAINER", site.container)


def options_of(site: Site) -> list[str]:
    """SBATCH_OPTIONS as words, each of them an option with its value. ValueError for one that breaks the life of a job."""
    words = _words("SBATCH_OPTIONS", site.sbatch_options)
    check_options(words)
    return words


def _words(key: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{key}={text!r}: {error}; quote its words as in a shell") from None


def limit_s(text: str) -> int:
    """Seconds of one of SLURM's time limits: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S. ValueError if it is none."""
    found = _LIMIT.fullmatch(text)
    if not found:
        raise ValueError(f"time limit {text!r}: expected minutes, H:M:S or D-H:M:S, for example 24:00:00")
    days, *rest = found.groups()
    numbers = [int(part) for part in rest if part is not None]
    if days is not None:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds
