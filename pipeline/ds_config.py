"""ds_configs/*.json -> the dictionary that DeepSpeed is given. Mechanics only; everything else is the RunConfig's.

DeepSpeed takes any top-level key in silence and has changed defaults before, so keys are checked here and every value that
matters is written out.
"""

import json
from pathlib import Path
from typing import Any

from pipeline.config import BatchArithmetic
from preprocessing.cli import nearest

DS_CONFIGS = Path(__file__).parent.parent / "ds_configs"
LEGAL_ZERO_KEYS: dict[str, type] = {
    "stage": int,
    "reduce_scatter": bool,
    "reduce_bucket_size": int,
    "allgather_bucket_size": int,
    "overlap_comm": bool,
    "contiguous_gradients": bool,
    "round_robin_gradients": bool,
}
OWNED_BY_RUN_CONFIG = {
    "train_batch_size": "batch.global_sequences",
    "train_micro_batch_size_per_gpu": "batch.micro_sequences",
    "gradient_accumulation_steps": "batch (it follows from the world size)",
    "gradient_clipping": "optim.clip_c",
    "optimizer": "optim",
    "scheduler": "optim.schedule",
}
SUPPORTED_STAGES = (0, 1, 2)


def load_ds_config(name: str) -> dict[str, Any]:
    """The mechanics called `name` (a file of ds_configs/, or a path ending in .json), checked; ValueError otherwise."""
    path = Path(name) if name.endswith(".json") else DS_CONFIGS / f"{name}.json"
    if not path.is_file():
        known = sorted(p.stem for p in DS_CONFIGS.glob("*.json"))
        raise ValueError(f"train.ds_config: no file {path}: {nearest(name, known)}, or the path of a .json file")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("zero_optimization"), dict):
        raise ValueError(f'{path}: expected an object with "zero_optimization": {{"stage": …}}')
    for key in values:
        if key in OWNED_BY_RUN_CONFIG:
            raise ValueError(f"{path}: {key!r} belongs to the recipe ({OWNED_BY_RUN_CONFIG[key]}): remove it here")
        if key != "zero_optimization":
            raise ValueError(f"{path}: unknown key {key!r}; {nearest(key, ['zero_optimization'])}")
    zero = values["zero_optimization"]
    for key, value in zero.items():
        if key not in LEGAL_ZERO_KEYS:
            raise ValueError(f"{path}: unknown key 'zero_optimization.{key}'; {nearest(key, LEGAL_ZERO_KEYS)}")
        if type(value) is not LEGAL_ZERO_KEYS[key]:
            raise ValueError(f"{path}: zero_optimization.{key} = {value!r}, expected {LEGAL_ZERO_KEYS[key].__name__}")
    if zero.get("stage") not in SUPPORTED_STAGES:
        raise ValueError(f"{path}: zero_optimization.stage = {zero.get('stage')!r}; supported: {SUPPORTED_STAGES}")
    for key in ("round_robin_gradients", "overlap_comm"):
        if zero.get(key):
            raise ValueError(f"{path}: zero_optimization.{key} = true is not tested with global norms here: set it to false")
    return values


def deepspeed_dictionary(mechanics: dict[str, Any], batch: BatchArithmetic) -> dict[str, Any]:
    """What deepspeed.initialize gets, complete: it is saved with the run."""
    return {
        "train_batch_size": batch.global_sequences,
        "train_micro_batch_size_per_gpu": batch.micro_sequences,
        "gradient_accumulation_steps": batch.accumulation_steps,
        "gradient_clipping": 0.0,  # DeepSpeed's own default is 1.0, on all groups: the optimiser does the clipping
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
        **mechanics,
    }
