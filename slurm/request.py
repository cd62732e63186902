"""What a user asks `submit` for, and everything that is checked before a job is queued."""

import itertools
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config.batch import batch_arithmetic
from pipeline.config.load import load_recipe
from pipeline.config.schema import RunConfig
from pipeline.tasks.examples import TASKS, TaskName
from pipeline.tasks.files import files_of
from preprocessing.build.options import parse_build_options, settings_of
from preprocessing.build.plan import differences_of_settings
from preprocessing.build.settings import Settings
from preprocessing.corpus.reader import Corpus, open_corpus
from slurm.records import folder_of
from slurm.site import Site, limit_s

THEN = ("evaluate", "finetune", "export", "memory")
HOST_BYTES = 1_000_000_000  # of each rank beside what the dry run counts: interpreter, libraries, batches
CHECKPOINTS_FREE = 2  # the disk must hold so many more
_PATH = re.compile(r'[^\x00-\x1f\x7f"\\%]+')
_SWEEP_VALUE = re.compile(r"[\w.+-]+|\[[\w.+,-]*\]|[\w./+-]+")  # a word, a list, a path


@dataclass(frozen=True)
class Request:
    """A chain of jobs: [preprocess ->] pretrain or a sweep of it [-> evaluate, finetune, export]. Paths are absolute.

    sources, build: as `preprocessing tokenizer` takes them (none: the corpus is there). sweep: KEY=V1,V2,… each. tasks_after
    and what follows it: of `--then finetune`; without task_data the tasks' data come from the hub.
    """

    recipe: str
    data: Path
    run: Path
    site: Site
    overrides: tuple[str, ...] = ()
    fresh: bool = False
    start_from: Path | None = None
    sources: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    tasks: int = 16
    at_most: int = 0
    then: tuple[str, ...] = ()
    sweep: tuple[str, ...] = ()
    rank_logs: bool = False
    tasks_after: tuple[TaskName, ...] = TASKS
    task_data: Path | None = None
    seeds: int = 1
    finetune_overrides: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """RUN.slurm."""
        return folder_of(self.run)

    def settings(self) -> Settings:
        """What the corpus is to be built with: the build options as `python -m preprocessing tokenizer` understands them, or
        refuses them."""
        sources = (f"--source={source}" for source in self.sources)
        return settings_of(parse_build_options(["--out", str(self.data), *sources, *self.build]))

    def elements(self) -> dict[str, tuple[str, ...]]:
        """Of a sweep: the name of each run, below `run`, and its settings."""
        axes = [_axis(axis) for axis in self.sweep]
        chosen = [dict(choice) for choice in itertools.product(*(axis.items() for axis in axes))]
        return {",".join(settings): tuple(settings.values()) for settings in chosen}


def _axis(text: str) -> dict[str, str]:
    """The settings of one --sweep by the names that they have in a directory's name."""
    key, equals, values = text.partition("=")
    if not equals or not re.fullmatch(r"\w+\.[\w.]+", key):
        raise ValueError(f"--sweep {text}: expected section.key=VALUE,VALUE,…, for example --sweep optim.lr=0.1,0.2")
    named: dict[str, str] = {}
    for value in re.split(r",(?![^\[]*\])", re.sub(r",\s+", ",", values)):  # at the commas that are not within a list
        if not _SWEEP_VALUE.fullmatch(value):
            raise ValueError(
                f"--sweep {text}: {value!r} is to be a part of a directory's name: letters, digits and . + - _, a list of such "
                "words in [], or a path of them"
            )
        name = f"{key}={re.sub(r'[,/]', '_', value.strip('[]/')) or 'none'}"
        if name in named:
            raise ValueError(f"--sweep {text}: two runs would be called {name}: give each value once, under a name of its own")
        named[name] = _absolute(f"{key}={value}")
    return named


def _absolute(setting: str) -> str:
    """A setting KEY=VALUE; if the value is the path of a file (train.ds_config), as it is from any directory."""
    key, equals, value = setting.partition("=")
    return f"{key}={Path(value).absolute()}" if value.endswith(".json") and Path(value).is_file() else setting


def check(request: Request) -> dict[str, Any]:
    """The figures of the run; ValueError or OSError, in one line, for whatever would make one of the jobs fail."""
    _check_paths(request)
    if request.sweep and request.then:
        raise ValueError(f"--then {request.then[0]} goes with one run, not with --sweep")
    if request.build and not request.sources:
        raise ValueError("--build says how a corpus is to be built: give --source, too, or leave it out")
    if request.tasks < 1 or request.at_most < 0:
        raise ValueError(f"--tasks {request.tasks} --at-most {request.at_most}: expected at least 1 and 0 (no limit)")
    if "export" in request.then and (export := request.run.with_name(request.run.name + ".hf")).exists():
        raise ValueError(f"{export}: exists already, where --then export would write; move it away")
    if "finetune" in request.then:
        _check_finetuning(request)
    elements = request.elements() if request.sweep else {"": ()}
    if request.start_from is not None:
        from pipeline.run.started_from import check_is_another

        check_is_another(request.start_from, request.run)
    figures = [_figures(request, name, settings) for name, settings in elements.items()]
    return figures[0]


def _check_finetuning(request: Request) -> None:
    """That each task's recipe suits the run's model, and its files are there."""
    from pipeline.finetune.settings import finetune_config, recipe_for

    if request.seeds < 1:
        raise ValueError(f"--seeds {request.seeds}: expected at least 1")
    config = load_recipe(request.recipe, request.overrides)
    for task in request.tasks_after:
        wanted = finetune_config(task, recipe_for(task, config), config, request.finetune_overrides)
        batch_arithmetic(wanted.batch, 1)
        for split in ("train", "dev") if request.task_data else ():
            assert request.task_data is not None
            files_of(task, request.task_data, split)


def _check_paths(request: Request) -> None:
    for option, path in (("--data", request.data), ("--run", request.run), ("--from", request.start_from or request.run)):
        if not _PATH.fullmatch(str(path)):
            raise ValueError(f'{option} {str(path)!r}: sbatch cannot take a path with a control character, ", % or \\')
    if not request.run.name:
        raise ValueError(f"--run {request.run}: expected a directory of its own")
    data, run, folder = (path.resolve() for path in (request.data, request.run, request.folder))
    for place in (run, folder):
        if place == data or place in data.parents or data in place.parents:
            raise ValueError(
                f"--run {request.run} and --data {request.data}: one lies in the other, or in {folder}; keep them apart"
            )
    parent = next(parent for parent in folder.parents if parent.exists())
    if (folder.exists() and not folder.is_dir()) or not parent.is_dir():
        raise ValueError(f"{folder}: not a directory that could be made")


def _figures(request: Request, name: str, settings: tuple[str, ...]) -> dict[str, Any]:
    """Of one run."""
    config = load_recipe(request.recipe, [*request.overrides, *settings])
    run_dir = request.run / name if name else request.run
    batch_arithmetic(config.batch, request.site.world_size)
    if request.data.exists():
        return _figures_of_corpus(request, config, run_dir)
    if not request.sources:
        raise ValueError(f"--data {request.data}: not there; give --source, from which it is to be built, or the right --data")
    wanted = request.settings()
    _check_sources(request.sources)
    from pipeline.train.dry_run import sizes

    if (run_dir / "config.json").exists() and not request.fresh:
        raise ValueError(f"{run_dir} is a run of another corpus than {request.data}, which is yet to be built; another --run")
    return {**sizes(config, wanted.vocab_size, request.site.world_size), "recipe": request.recipe}


def _figures_of_corpus(request: Request, config: RunConfig, run_dir: Path) -> dict[str, Any]:
    from pipeline.train.dry_run import dry_run

    corpus = open_corpus(request.data, verify="sizes")
    if request.sources:
        _check_built(request, corpus)
    there = None if request.fresh else run_dir
    world_size, start_from = request.site.world_size, request.start_from
    return dry_run(config, request.recipe, request.data, there, world_size, verify="sizes", start_from=start_from)


def _check_built(request: Request, corpus: Corpus) -> None:
    """ValueError if the corpus that is there was built with other settings than are asked for now."""
    if others := differences_of_settings(corpus.manifest, request.settings()):
        other = others[0]
        raise ValueError(
            f"--data {request.data}: built with {other.name} = {other.found!r}, asked for now: {other.wanted!r}; another --data"
        )


def _check_sources(sources: Sequence[str]) -> None:
    """That local files are there; the job that plans the corpus looks into them."""
    for source in sources:
        path = source.partition("=")[2] if "=" in source and not Path(source).exists() else source
        local = re.match(r"(builtin|wikipedia(:.*)?|books(:.*)?|hf:.*)$", path) is None
        if local and not any(Path().glob(path) if not Path(path).is_absolute() else Path("/").glob(path.lstrip("/"))):
            raise ValueError(f"--source {source}: no such file")


def needs(request: Request, figures: dict[str, Any]) -> dict[str, int]:
    """What each node must have free: bytes on the disk of the run, bytes of host memory."""
    ranks = request.site.ranks
    return {
        "disk_bytes": CHECKPOINTS_FREE * figures["checkpoint_bytes"],
        "memory_bytes": ranks * (HOST_BYTES + figures["checkpoint_copy_bytes_per_rank"]),
    }


def estimate_s(request: Request, figures: dict[str, Any]) -> tuple[float | None, str]:
    """Seconds of training that are left, and how that is known. From the run's own speed, if it has begun; else from
    TFLOPS_PER_GPU and 6 floating point operations a parameter and token; else unknown."""
    world, tokens = request.site.world_size, figures["tokens"]
    rows = [] if request.fresh else _measured(request.run)
    if rows:
        rates = sorted(row["tokens_per_s"] / row["world_size"] for row in rows)
        rate = rates[len(rates) // 2]
        return (tokens - rows[-1]["tokens"]) / (rate * world), f"from this run's {rate:,.0f} tokens/s a rank"
    if request.site.tflops_per_gpu:
        seconds = 6 * figures["parameters"] * tokens / (request.site.tflops_per_gpu * 1e12 * world)
        return seconds, f"from 6 x parameters x tokens at TFLOPS_PER_GPU={request.site.tflops_per_gpu:g}"
    return None, "unknown: the run has not been measured, and slurm/site.env gives no TFLOPS_PER_GPU"


def _measured(run: Path) -> list[dict[str, Any]]:
    from pipeline.run.metrics_file import METRICS, read_metrics

    return read_metrics(run / METRICS)[0] if (run / METRICS).exists() else []


def time_lines(request: Request, figures: dict[str, Any]) -> list[str]:
    """Estimated time and node hours, for people."""
    site, runs = request.site, len(request.elements()) if request.sweep else 1
    seconds, how = estimate_s(request, figures)
    each = f"{site.nodes} nodes x {site.ranks} ranks" + (f", {runs} runs" if runs > 1 else "")
    if seconds is None:
        most = site.nodes * limit_s(site.time) / 3600 * runs
        return [f"time         {how}", f"node hours   at most {most:,.1f} a start ({each}, TIME={site.time})"]
    starts = math.ceil(seconds / (limit_s(site.time) - site.warning_s))
    return [
        f"time         {seconds / 3600:,.1f} h of training, {starts} starts of TIME={site.time} ({how})",
        f"node hours   {site.nodes * seconds / 3600 * runs:,.1f} ({each})",
    ]


def with_absolute_paths(request: Request) -> Request:
    """Paths as they are from any directory: the job's log and its folder must not depend on where it was submitted."""
    recipe = str(Path(request.recipe).absolute()) if request.recipe.endswith(".toml") else request.recipe
    return replace(
        request,
        recipe=recipe,
        data=request.data.absolute(),
        run=request.run.absolute(),
        overrides=tuple(map(_absolute, request.overrides)),
        start_from=request.start_from and request.start_from.absolute(),
        task_data=request.task_data and request.task_data.absolute(),
    )


def words(text: str) -> tuple[str, ...]:
    """A string of options as a shell splits it; ValueError if a quote is open."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}; quote it as in a shell") from None
