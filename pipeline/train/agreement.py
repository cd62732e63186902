"""Before the first step: do all ranks train the same thing?

Ranks on several machines may read other files under the same names: a corpus on the node's own disk, a recipe that was edited
on one node, another version of this program or of a library. Each of them would train, and look well. So every rank writes down
what it is about to do, and all of them must have written the same.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.config.load import as_dict
from pipeline.config.schema import RunConfig
from pipeline.distributed.ranks import Ranks
from pipeline.run.directory import PACKAGES
from preprocessing.corpus.reader import Corpus

CODE = Path(__file__).resolve().parents[2]
CODE_FOLDERS = ("pipeline", "preprocessing")
REMEDIES = {  # by the first word of a field
    "configuration": "give every node the same files, and every rank the same --set",
    "DeepSpeed": "give every node the same files of ds_configs",
    "corpus": "give every node the same files: copy the corpus again",
    "task": "give every node the same files of the task's data",
    "pretrained": "give every node the same pretrained run, or the same export",
    "environment": "set it alike on every node, or nowhere",
    "code": "install the same on every node",
    "version": "install the same on every node",
}
# Of what an environment may say, what changes the precision of a matrix product on a GPU.
PRECISION = ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE")
NAMED_RANKS = 4


def plan_of(config: RunConfig, ds_dictionary: Mapping[str, Any], corpus: Corpus) -> dict[str, str]:
    """What this rank is about to train, as text, by field: configuration, DeepSpeed's dictionary, corpus, code, environment,
    libraries."""
    return {
        **{f"configuration: {key}": value for key, value in _flat(as_dict(config)) if key != "description"},
        **{f"DeepSpeed: {key}": value for key, value in _flat(ds_dictionary)},
        "corpus: sha256 of its manifest": corpus.manifest_sha256,
        "code: sha256 of its files": code_sha256(),
        **{f"environment: {name}": repr(os.environ.get(name)) for name in PRECISION},
        "version of python": platform.python_version(),
        **{f"version of {name}": importlib.metadata.version(name) for name in PACKAGES},
        "version of triton": _version_of_triton(),
        "version of CUDA in torch": str(torch.version.cuda or torch.version.hip),  # builds of one torch may differ in it
    }


def _version_of_triton() -> str:
    """It compiles kernels of the attention; a machine without a GPU needs none."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def code_sha256() -> str:
    """Of the Python files of this program, wherever they lie and whether or not git knows them."""
    digest = hashlib.sha256()
    for folder in CODE_FOLDERS:
        for path in sorted((CODE / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(CODE).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def check_agreement(ranks: Ranks, plan: Mapping[str, str]) -> None:
    """ValueError, the same on every rank, naming the first field in which some rank differs from rank 0, with both values, the
    ranks and their hosts. A collective."""
    digests = ranks.gather(hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest())
    if len(set(digests)) == 1:
        return
    others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    wanted = {0, others[0]}
    shown = ranks.gather(dict(plan) if ranks.rank in wanted else None)
    hosts = ranks.gather(socket.gethostname())
    first, other = shown[0], shown[others[0]]
    field = next(name for name in {**first, **other} if first.get(name) != other.get(name))
    alike = [rank for rank in others if digests[rank] == digests[others[0]]]
    remedy = REMEDIES[re.split(r"\W", field)[0]]
    raise ValueError(
        f"the ranks would not train the same run: {field} is {other.get(field)} on {_named(alike, hosts)}, "
        f"{first.get(field)} on rank 0 (host {hosts[0]}); {remedy}"
    )


def _named(ranks: Sequence[int], hosts: Sequence[str]) -> str:
    shown = [f"rank {rank} (host {hosts[rank]})" for rank in ranks[:NAMED_RANKS]]
    more = f" and {len(ranks) - NAMED_RANKS} more" if len(ranks) > NAMED_RANKS else ""
    return ", ".join(shown) + more


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, value as text) of nested plain values."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, json.dumps(value)
