"""SBATCH_OPTIONS of a site: which options of sbatch break a job's life, which go over a setting, which are taken as they are.

An option that sbatch knows and this file does not is passed on: sbatch judges it.
"""

import itertools
import re
from collections.abc import Sequence

# Of sbatch 22.05 and later, for the abbreviations: sbatch takes any beginning of a name that fits one name alone.
_NAMES = """
    account acctg-freq array batch bb bbf begin chdir cluster cluster-constraint clusters comment constraint container
    container-id contiguous core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency
    distribution error exclude exclusive export export-file extra extra-node-info get-user-env gid gpu-bind gpu-freq gpus
    gpus-per-node gpus-per-socket gpus-per-task gres gres-flags help hint hold ignore-pbs input job-name kill-on-invalid-dep
    licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nice no-kill no-requeue
    nodefile nodelist nodes ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output
    overcommit oversubscribe parsable partition power prefer priority profile propagate qos quiet reboot requeue reservation
    segment share signal sockets-per-node spread-job stepmgr switches tasks-per-node test-only thread-spec threads-per-core
    time time-min tmp tres-bind tres-per-task uid usage use-min-nodes verbose version wait wait-all-nodes wckey wrap
"""
NAMES = frozenset(_NAMES.split())
_SHORT = """
    A:account a:array B:extra-node-info b:begin C:constraint c:cpus-per-task D:chdir d:dependency e:error F:nodefile G:gpus
    H:hold h:help i:input J:job-name k:no-kill L:licenses M:clusters m:distribution N:nodes n:ntasks O:overcommit o:output
    p:partition Q:quiet q:qos S:core-spec s:oversubscribe t:time V:version v:verbose W:wait w:nodelist x:exclude
"""
SHORT = dict(pair.split(":") for pair in _SHORT.split())
_LOG = ("`status` and the next start look for the log at RUN.slurm/STAGE-JOB.log", "leave it out")
_RANKS = ("it contradicts nodes x ranks, of which the batch is made", "use RANKS_PER_NODE and NODES")
_GPUS = ("it would be asked of every job, those without GPUs too", "use GPUS_PER_NODE, GPU_TYPE and GPU_OPTION")
_ANSWER = ("submit needs a job, and its id as sbatch's answer", "leave it out")
_ENVIRONMENT = ("the ranks would not get what the job's shell sets for them", "leave it out; SETUP lines set the environment")
_CLUSTERS = ("squeue and scontrol would ask this cluster for the job", "submit from a login node of the other")
_CONTAINER = ("the job's shell calls srun and scontrol, which are outside", "use CONTAINER")
REFUSED = {  # what it would do, and what to do instead
    "array": ("each element would train in the same run directory", "use --sweep, or --tasks for the shards"),
    "chdir": ("sources and the recipe are looked for from where submit is called", "call submit there"),
    **dict.fromkeys(("cluster", "clusters"), _CLUSTERS),
    **dict.fromkeys(("container", "container-id"), _CONTAINER),
    "dependency": ("the jobs of a chain wait for one another", "use --hold, then scontrol update JobId=N Dependency=…"),
    **dict.fromkeys(("error", "output"), _LOG),
    **dict.fromkeys(("export", "export-file"), _ENVIRONMENT),
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres", "tres-per-task"), _GPUS),
    **dict.fromkeys(("help", "parsable", "test-only", "usage", "version", "wrap"), _ANSWER),
    "no-kill": ("after the loss of a node SLURM would not requeue the job", "leave it out"),
    "no-requeue": ("the job could not go back into the queue, as it does before its time ends", "leave it out"),
    "nodes": ("the batch is made for NODES", "use NODES, or submit --nodes"),
    **dict.fromkeys(("ntasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node"), _RANKS),
    **dict.fromkeys(("ntasks-per-socket", "tasks-per-node"), _RANKS),
    "open-mode": ("each start would delete the log of those before it", "leave it out"),
    "signal": ("the ranks wait for USR2, WARNING_S before the time limit", "use WARNING_S"),
    "time": ("the warning before the end and the estimate rest on TIME", "use TIME and CPU_TIME, or submit --time"),
    "wait": ("submit would wait for the job's end, and queue nothing after it", "use `python -m slurm status`"),
}
_WITHOUT_GPUS = r"(?i:(?!.*\bgpu\b).+)"
_LETS_THROUGH = {  # values that do no harm
    "export": r"(.*,)?ALL(,.*)?",
    "open-mode": "append",
    **dict.fromkeys(("gres", "tres-per-task"), _WITHOUT_GPUS),
}
GOES_OVER = {  # settings that stand before it in the script
    "account": ("account",),
    "constraint": ("constraint",),
    "partition": ("partition", "cpu_partition"),
    "qos": ("qos",),
}
YIELDS_TO = {  # settings that stand after it
    "cpus-per-task": ("cpus_per_rank", "cpus"),
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), ("memory_per_node", "cpu_memory")),
}
_OPTION = re.compile(r"--[a-z][a-z-]*(=[^\"\\\x00-\x1f\x7f]+)?")


def check_options(words: Sequence[str]) -> None:
    """ValueError, in one line, for the first word that breaks the life of a job, or that is no long option with its value."""
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        for option in meant(word):
            _, equals, value = word.partition("=")
            harmless = re.fullmatch(_LETS_THROUGH.get(option, "(?!)"), value if equals else following)
            if option in REFUSED and not harmless:
                why, instead = REFUSED[option]
                full = "" if word.partition("=")[0] == f"--{option}" else f" (--{option})"
                raise ValueError(f"SBATCH_OPTIONS: {word}{full}: {why}; {instead}")
        if not _OPTION.fullmatch(word):
            raise ValueError(f"SBATCH_OPTIONS: {word!r}: expected long options with their values, --exclusive --mail-type=FAIL")


def meant(word: str) -> list[str]:
    """The options that sbatch may understand by a word: --nodelist=n1, --nodel=n1 and -wn1 are nodelist; a word that is no
    option that is known here is none."""
    if not word.startswith("--"):
        return [SHORT[word[1]]] if word.startswith("-") and word[1:2] in SHORT else []
    name = word[2:].partition("=")[0]
    return [name] if name in NAMES else sorted(full for full in NAMES if name and full.startswith(name))


def notes(words: Sequence[str], settings: dict[str, object]) -> list[str]:
    """A line for each word that overrides a setting of the site, or is overridden by one, or changes what a job can survive.
    `settings`: of the site, by their names in lower case."""
    found = []
    for word in words:
        option = options[0] if len(options := meant(word)) == 1 else ""
        over = _given(GOES_OVER.get(option, ()), settings)
        under = _given(YIELDS_TO.get(option, ()), settings)
        if over:
            found.append(f"{word} goes over {over}")
        if under:
            found.append(f"{under} goes over {word}")
        if option == "gres" and settings["gpu_option"] == "gres" and settings["gpus_per_node"]:
            found.append(f"{word} is not asked of jobs with GPUs: their --gres goes over it")
        if option == "job-name":
            found.append(f"{word} is the name of all jobs: STAGE RUN is not")
        if option == "time-min":
            found.append(f"{word} lets SLURM shorten TIME: of a job of WARNING_S or less nothing is left to train in")
        if option in ("nodelist", "nodefile"):
            found.append(f"{word} pins nodes: a job of which one is unfit fails, for it cannot go on elsewhere")
    return found


def _given(names: Sequence[str], settings: dict[str, object]) -> str:
    return ", ".join(f"{name.upper()}={settings[name]}" for name in names if settings[name])
