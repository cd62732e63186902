"""ds_configs/ hold mechanics only, every key is known, and what DeepSpeed would default is written out."""

import json
from pathlib import Path

import pytest

from pipeline.config.batch import BatchArithmetic
from pipeline.config.ds_config import DS_CONFIGS, deepspeed_dictionary, load_ds_config


@pytest.mark.parametrize("path", sorted(DS_CONFIGS.glob("*.json")), ids=lambda p: p.stem)
def test_every_file_is_legal(path: Path) -> None:
    values = deepspeed_dictionary(load_ds_config(path.stem), BatchArithmetic(2, 4, 8, 64))
    assert values["gradient_clipping"] == 0.0
    assert values["train_batch_size"] == 64
    assert f"zero{values['zero_optimization']['stage']}" in path.stem
    assert ("bf16" in path.stem) == ("bf16" in values)
    assert ("offload" in path.stem) == ("offload_optimizer" in values["zero_optimization"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gradient_clipping": 1.0}, ["'gradient_clipping' belongs to the recipe", "optim.clip_c"]),
        ({"train_batch_size": 8}, ["belongs to the recipe", "batch.global_sequences"]),
        ({"zero_optimisation": {}}, ["did you mean 'zero_optimization'"]),
        ({"zero_optimization": {"stage": 1, "reduce_buckets": 5}}, ["did you mean 'reduce_bucket_size'"]),
        ({"zero_optimization": {"stage": 4}}, ["stage = 4", "0, 1, 2, 3"]),
        ({"zero_optimization": {"stage": 3, "round_robin_gradients": False}}, ["round_robin_gradients", "unknown key"]),
        ({"zero_optimization": {}}, ["stage = None"]),
        ({"zero_optimization": {"stage": True}}, ["stage = True", "0, 1, 2, 3"]),
        ({"zero_optimization": {"stage": 1, "reduce_bucket_size": "big"}}, ["reduce_bucket_size = 'big'", "expected int"]),
        (
            {"zero_optimization": {"stage": 1, "reduce_bucket_size": 0}},
            ["reduce_bucket_size = 0, expected a number of at least 1"],
        ),
        (
            {"zero_optimization": {"stage": 3, "stage3_max_live_parameters": -1}},
            ["parameters = -1, expected a number of at least 0"],
        ),
        ({"zero_optimization": {"stage": 3, "sub_group_size": 10**20}}, ["sub_group_size = 1", "below 2**63"]),
        ({"zero_optimization": {"stage": 1, "overlap_comm": True}}, ["overlap_comm"]),
        ({"bf16": {"enabled": 1}}, ["bf16 = ", "true"]),
        ({"bf16": True}, ["bf16 = True"]),
        ({"bf16": {"enabled": True, "bf16_master_weights_and_grads": True}}, ["nothing else"]),
        ({"fp16": {"enabled": True}}, ["fp16 is not supported", "use bf16"]),
        ({"torch_autocast": {"enabled": True}}, ["torch_autocast is not supported"]),
        ({"data_types": {"grad_accum_dtype": "fp32"}}, ["data_types is not supported"]),
        ({"communication_data_type": "fp16"}, ["communication_data_type = 'fp16'"]),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "nvme"}}}, ["'nvme'", "only 'cpu'"]),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"devise": "cpu"}}}, ["did you mean 'device'"]),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}, ["offload_param is not supported"]),
        ({"zero_optimization": {"stage": 1, "compute_grad_norm": False}}, ["compute_grad_norm is not supported"]),
        ({"zero_optimization": {"stage": 1, "round_robin_gradients": True}}, ["round_robin_gradients"]),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, values: dict[str, object], words: list[str]) -> None:
    path = tmp_path / "mine.json"
    zero = values.get("zero_optimization")
    if (
        isinstance(zero, dict) and zero.get("stage") in (1, 2, 3) and zero["stage"] is not True
    ):  # what is wrong stands among all that is needed
        values = {**values, "zero_optimization": {**load_ds_config(f"zero{zero['stage']}")["zero_optimization"], **zero}}
    path.write_text(json.dumps({**load_ds_config("zero1"), **values}))
    with pytest.raises(ValueError) as refusal:
        load_ds_config(str(path))
    assert str(path) in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("name", ["zero1", "zero3", "zero2-offload-bf16"])
def test_a_key_left_to_deepspeed_s_default_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mine.json"
    for key in set(load_ds_config(name)["zero_optimization"]) - {"stage", "offload_optimizer"}:
        values = load_ds_config(name)
        del values["zero_optimization"][key]
        path.write_text(json.dumps(values))
        with pytest.raises(ValueError, match=f"zero_optimization has no {key}"):
            load_ds_config(str(path))
    path.write_text(json.dumps({**load_ds_config("zero1"), "bf16": {"enabled": True}}))
    with pytest.raises(ValueError, match="bf16 without communication_data_type"):
        load_ds_config(str(path))


def test_what_is_no_json_is_named_and_a_byte_order_mark_is_none_of_it(tmp_path: Path) -> None:
    path, text = tmp_path / "mine.json", (DS_CONFIGS / "zero2.json").read_text()
    path.write_text(text, encoding="utf-8-sig")
    assert load_ds_config(str(path)) == load_ds_config("zero2")
    for content, words in (
        (text.encode("utf-16"), "not UTF-8"),
        (text[:-9].encode(), "not valid JSON"),
        (b"[" * 10**5, "JSON"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words) as refusal:
            load_ds_config(str(path))
        assert str(refusal.value).startswith(f"{path}: ")


def test_an_unknown_name_lists_the_files() -> None:
    with pytest.raises(ValueError, match="did you mean 'zero1'"):
        load_ds_config("zero-1")
