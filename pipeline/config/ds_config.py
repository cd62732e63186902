"""ds_configs/*.json -> the dictionary that DeepSpeed is given. Mechanics only; everything else is the RunConfig's.

DeepSpeed takes any top-level key in silence and has changed defaults before, so keys are checked here and every value that
matters is written out.
"""

import json
from pathlib import Path
from typing import Any

from pipeline.config.batch import BatchArithmetic
from preprocessing.base.command_line import nearest
from preprocessing.base.files import user_text

DS_CONFIGS = Path(__file__).parent.parent.parent / "ds_configs"
OFFLOAD_KEYS: dict[str, type] = {"device": str, "pin_memory": bool}
BUCKET_KEYS: dict[str, type] = {
    "stage": int,
    "reduce_scatter": bool,
    "reduce_bucket_size": int,
    "overlap_comm": bool,
    "contiguous_gradients": bool,
}
KEYS_OF_STAGE: dict[int, dict[str, type]] = {
    0: {"stage": int},
    1: {**BUCKET_KEYS, "allgather_bucket_size": int, "round_robin_gradients": bool, "offload_optimizer": dict},
    3: {
        **BUCKET_KEYS,
        "sub_group_size": int,
        "stage3_prefetch_bucket_size": int,
        "stage3_param_persistence_threshold": int,
        "stage3_max_live_parameters": int,
        "stage3_max_reuse_distance": int,
        "offload_optimizer": dict,
    },
}
KEYS_OF_STAGE[2] = KEYS_OF_STAGE[1]
TOP_KEYS = ("zero_optimization", "bf16", "communication_data_type")
REFUSED = {
    "fp16": "DeepSpeed 0.19.8 divides the gradients of a step at which the dynamic loss scale grows by the grown scale, and "
    "under stage 0 never multiplies the loss by it: use bf16",
    "amp": "use bf16",
    "torch_autocast": "its norms are not certified: use bf16",
    "data_types": "fp32 accumulation of bf16 gradients takes another optimiser wrapper under stage 1, which is not certified",
    "zero_optimization.offload_param": "not certified: offload_optimizer is",
    "zero_optimization.compute_grad_norm": "the optimiser takes all norms, and tells DeepSpeed its decision: leave it out",
}
OWNED_BY_RUN_CONFIG = {
    "train_batch_size": "batch.global_sequences",
    "train_micro_batch_size_per_gpu": "batch.micro_sequences",
    "gradient_accumulation_steps": "batch (it follows from the world size)",
    "gradient_clipping": "optim.clip_c",
    "optimizer": "optim",
    "scheduler": "optim.schedule",
}


def load_ds_config(name: str) -> dict[str, Any]:
    """The mechanics called `name` (a file of ds_configs/, or a path ending in .json), checked; ValueError otherwise."""
    path = Path(name) if name.endswith(".json") else DS_CONFIGS / f"{name}.json"
    if not path.is_file():
        known = sorted(p.stem for p in DS_CONFIGS.glob("*.json"))
        raise ValueError(f"train.ds_config: no file {path}: {nearest(name, known)}, or the path of a .json file")
    try:
        values = json.loads(user_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("zero_optimization"), dict):
        raise ValueError(f'{path}: expected an object with "zero_optimization": {{"stage": …}}')
    _check_keys(path, values, "", dict.fromkeys(TOP_KEYS, object))
    bf16 = values.get("bf16", {"enabled": False})
    if not isinstance(bf16, dict) or set(bf16) != {"enabled"} or type(bf16["enabled"]) is not bool:
        raise ValueError(f'{path}: bf16 = {bf16!r}, expected {{"enabled": true}} or {{"enabled": false}} and nothing else')
    if values.get("communication_data_type", "fp32") not in ("fp32", "bf16"):
        raise ValueError(f"{path}: communication_data_type = {values['communication_data_type']!r}, expected 'fp32' or 'bf16'")
    if bf16["enabled"] and "communication_data_type" not in values:
        raise ValueError(f"{path}: bf16 without communication_data_type: write 'bf16' (as ds_configs do) or 'fp32'")
    _check_zero(path, values["zero_optimization"])
    return values


def _check_zero(path: Path, zero: dict[str, Any]) -> None:
    stage = zero.get("stage")
    if type(stage) is not int or stage not in KEYS_OF_STAGE:
        raise ValueError(
            f"{path}: zero_optimization.stage = {stage!r}, expected one of {', '.join(map(str, sorted(KEYS_OF_STAGE)))}"
        )
    _check_keys(path, zero, "zero_optimization.", KEYS_OF_STAGE[stage])
    missing = [key for key in KEYS_OF_STAGE[stage] if key not in zero and key != "offload_optimizer"]
    if missing:
        raise ValueError(
            f"{path}: zero_optimization has no {', '.join(missing)}: DeepSpeed's defaults (overlapping, say) are not "
            f"certified; write each, as ds_configs/zero{stage}.json does"
        )
    for key in ("round_robin_gradients", "overlap_comm"):
        if zero.get(key):
            raise ValueError(f"{path}: zero_optimization.{key} = true is not certified with global norms: set it to false")
    if "offload_optimizer" in zero:
        _check_keys(path, zero["offload_optimizer"], "zero_optimization.offload_optimizer.", OFFLOAD_KEYS)
        if zero["offload_optimizer"].get("device") != "cpu":
            device = zero["offload_optimizer"].get("device")
            raise ValueError(f"{path}: zero_optimization.offload_optimizer.device = {device!r}; only 'cpu' is certified")


def _check_keys(path: Path, section: dict[str, Any], prefix: str, legal: dict[str, type]) -> None:
    for key, value in section.items():
        if prefix + key in REFUSED:
            raise ValueError(f"{path}: {prefix}{key} is not supported: {REFUSED[prefix + key]}")
        if prefix + key in OWNED_BY_RUN_CONFIG:
            raise ValueError(f"{path}: {key!r} belongs to the recipe ({OWNED_BY_RUN_CONFIG[key]}): remove it here")
        if key not in legal:
            raise ValueError(f"{path}: unknown key {prefix + key!r}; {nearest(key, legal)}")
        if legal[key] is not object and type(value) is not legal[key]:
            raise ValueError(f"{path}: {prefix}{key} = {value!r}, expected {legal[key].__name__}")
        least = 0 if key.startswith("stage") else 1  # the stage, and stage 3's limits
        if type(value) is int and not least <= value < 2**63:
            raise ValueError(f"{path}: {prefix}{key} = {value}, expected a number of at least {least}, below 2**63")


def precision(mechanics: dict[str, Any]) -> str:
    """What the forward pass computes in: "bf16" or "fp32"."""
    return "bf16" if mechanics.get("bf16", {}).get("enabled") else "fp32"


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
