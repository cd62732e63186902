"""The sbatch files of a request: a template, the options of SLURM, the settings as shell variables.

Every word of a user's stands in single quotes (shlex.quote) or in a quoted option; what an option cannot hold is refused
before (`request.check`). So nothing in a name is ever expanded or executed.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slurm.request import Request
from slurm.site import Site, options_of

TEMPLATES = Path(__file__).parent
REPOSITORY = TEMPLATES.parent
OPTIONS, SETTINGS = "# <options>\n# shellcheck disable=SC2154  # the settings come at submission\n", "# <settings>\n"

Values = Mapping[str, "str | int | tuple[str, ...]"]


@dataclass(frozen=True)
class Script:
    """One job: its name, its sbatch file, and the name of the job that must have succeeded before it."""

    name: str
    text: str
    after: str | None

    @property
    def file(self) -> str:
        """Its name in RUN.slurm."""
        return f"{self.name}.sbatch"


def scripts(request: Request, needs: Mapping[str, int], python: str) -> list[Script]:
    """All jobs of the request, in their order. `python`: the interpreter, unless the site says another."""
    found: list[Script] = []
    if request.sources and not request.data.exists():
        found += _preprocessing(request, python)
    before = found[-1].name if found else None
    train = "sweep" if request.sweep else "pretrain"
    options = [*_common(request, train, request.site.time), *_training_options(request)]
    found.append(_script(request, train, before, options, python, {**_training_values(request), **needs}))
    for stage in request.then:
        after = before if stage == "memory" else train  # it needs the vocabulary alone
        found.append(_script(request, stage, after, _single_options(request, stage), python, _single_values(request, stage)))
    return found


def _script(
    request: Request, name: str, after: str | None, options: list[str], python: str, values: Values, template: str = ""
) -> Script:
    site = request.site
    common: Values = {
        "repo": str(REPOSITORY),
        "folder": str(request.folder),
        "python": site.python or python,
        "container": tuple(shlex.split(site.container)),
    }
    text = (TEMPLATES / f"{template or name}.sbatch").read_text(encoding="utf-8")
    settings = "".join(_assignment(key, value) for key, value in {**common, **values}.items())
    setup = "".join(f"{line}\n" for line in ("# SETUP of the site", *site.setup)) if site.setup else ""
    rendered = text.replace(OPTIONS, "".join(f"#SBATCH {option}\n" for option in options)).replace(SETTINGS, settings + setup)
    return Script(name, rendered, after)


def _assignment(name: str, value: str | int | tuple[str, ...]) -> str:
    if isinstance(value, tuple):
        always = (f"'{word}'" if shlex.quote(word) == word else shlex.quote(word) for word in value)  # a bare comma looks wrong
        return f"{name}=({' '.join(always)})\n"
    return f"{name}={shlex.quote(str(value))}\n"


def _common(request: Request, name: str, time: str, partition: str = "", array: bool = False) -> list[str]:
    """The options that every job has."""
    site = request.site
    log = "%A_%a" if array or name == "sweep" else "%j"
    asked = {
        "account": site.account,
        "partition": partition or site.partition,
        "qos": site.qos,
        "time": time,
    }
    return [
        f'--job-name="{name} {request.run.name}"',
        f'--output="{request.folder}/{name}-{log}.log"',
        *(f"--{option}={value}" for option, value in asked.items() if value),
        *([f'--constraint="{site.constraint}"'] if site.constraint else []),
        *(_quoted(option) for option in options_of(site)),
    ]


def _quoted(option: str) -> str:
    name, equals, value = option.partition("=")
    return f'{name}="{value}"' if equals else name


def _training_options(request: Request) -> list[str]:
    site = request.site
    options = [
        f"--nodes={site.nodes}",
        f"--ntasks-per-node={site.ranks}",
        *_gpu_options(site, site.gpus_per_node),
        *([f"--cpus-per-task={site.cpus_per_rank}"] if site.cpus_per_rank else []),
        *([f"--mem={site.memory_per_node}"] if site.memory_per_node else []),
        f"--signal=USR2@{site.warning_s}",  # to the ranks; NCCL may take USR1 for itself
    ]
    return [*options, f"--array=0-{len(request.elements()) - 1}{_at_most(request)}"] if request.sweep else options


def _at_most(request: Request) -> str:
    return f"%{request.at_most}" if request.at_most else ""


def _gpu_options(site: Site, count: int) -> list[str]:
    of_type = f"{site.gpu_type}:" if site.gpu_type else ""
    option = "--gpus-per-node=" if site.gpu_option == "gpus-per-node" else "--gres=gpu:"
    return [f"{option}{of_type}{count}"] if count else []


def _training_values(request: Request) -> Values:
    site = request.site
    more = [word for override in request.overrides for word in ("--set", override)]
    if request.start_from is not None:
        more = ["--from", str(request.start_from), *more]
    values: dict[str, str | int | tuple[str, ...]] = {
        "recipe": request.recipe,
        "data": str(request.data),
        "more": tuple(more),
        "fresh": "yes" if request.fresh else "",
        "script": str(request.folder / ("sweep.sbatch" if request.sweep else "pretrain.sbatch")),
        "gpus": site.gpus_per_node,
        "most_fruitless_starts": site.most_fruitless_starts,
        "heartbeat_s": site.heartbeat_s,
        "rank_logs": f"{request.folder}/rank" if request.rank_logs else "",
    }
    if not request.sweep:
        return {"run": str(request.run), **values}
    elements = request.elements()
    sweep = tuple(" ".join(settings) for settings in elements.values())
    return {"runs": str(request.run), "names": tuple(elements), "sweep": sweep, **values}


def _single_values(request: Request, stage: str) -> Values:
    """What a job with one process is told."""
    if stage == "memory":
        more = tuple(word for override in request.overrides for word in ("--set", override))
        return {"recipe": request.recipe, "more": more, "data": str(request.data), "ranks": request.site.ranks}
    if stage == "finetune":
        words = [word for override in request.finetune_overrides for word in ("--set", override)]
        data = ("--data", str(request.task_data)) if request.task_data else ()
        more = ("--seeds", str(request.seeds), *data, *words)
        return {"run": str(request.run), "data": str(request.data), "tasks": request.tasks_after, "more": more}
    return {"run": str(request.run), "data": str(request.data)}  # evaluate, export


def _single_options(request: Request, stage: str) -> list[str]:
    """Of a job with one process: evaluation and fine-tuning take a GPU if the training does, the measurement of memory a
    node."""
    site = request.site
    if stage == "memory":
        return [
            *_common(request, stage, site.time),
            *("--nodes=1", "--ntasks=1"),
            *_gpu_options(site, site.gpus_per_node),
            *([f"--cpus-per-task={site.cpus_per_rank * site.ranks}"] if site.cpus_per_rank else []),
            *([f"--mem={site.memory_per_node}"] if site.memory_per_node else []),
        ]
    if stage == "finetune":
        return [
            *_common(request, stage, site.time),
            "--ntasks=1",
            *_gpu_options(site, min(1, site.gpus_per_node)),
            *([f"--cpus-per-task={site.cpus_per_rank}"] if site.cpus_per_rank else []),
            f"--signal=USR2@{site.warning_s}",
        ]
    if stage == "evaluate" and site.gpus_per_node:
        return [*_common(request, stage, site.time), "--ntasks=1", *_gpu_options(site, 1)]
    return [*_common(request, stage, site.cpu_time, site.cpu_partition), "--ntasks=1", *_cpu_options(site)]


def _cpu_options(site: Site) -> list[str]:
    return [
        *([f"--cpus-per-task={site.cpus}"] if site.cpus else []),
        *([f"--mem={site.cpu_memory}"] if site.cpu_memory else []),
    ]


def _preprocessing(request: Request, python: str) -> list[Script]:
    """Plan and tokenizer, the shards as an array, the end."""
    found: list[Script] = []
    build = (*(f"--source={source}" for source in request.sources), *request.build)
    for step in ("tokenizer", "shard", "finalize"):
        name, array = f"preprocess-{step}", step == "shard"
        options = [
            *_common(request, name, request.site.cpu_time, request.site.cpu_partition, array),
            "--ntasks=1",
            *_cpu_options(request.site),
            *([f"--array=0-{request.tasks - 1}{_at_most(request)}"] if array else []),
        ]
        values: Values = {"data": str(request.data), "step": step, "tasks": request.tasks, "build": build}
        found.append(_script(request, name, found[-1].name if found else None, options, python, values, "preprocess"))
    return found
