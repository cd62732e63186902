"""The configuration is typed and strict: what is wrong is named, and so is the way out."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from pipeline.config.batch import batch_arithmetic
from pipeline.config.load import as_dict, changed, from_dict, load_recipe, recipe_names
from pipeline.config.schema import BatchConfig, RunConfig


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_says_what_it_is_and_survives_json(name: str) -> None:
    config = load_recipe(name)
    assert len(config.description) > 30
    text = json.dumps(as_dict(config), allow_nan=False)
    again = from_dict(json.loads(text), "round trip")
    assert again == config
    assert json.dumps(as_dict(again)) == text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.learning_rate=1", ["'optim.learning_rate'", "legal: ", "lr"]),
        ("optim.clip=3", ["did you mean 'clip_c'"]),
        ("optm.lr=1", ["did you mean 'optim'"]),
        ("optim.lr=fast", ["optim.lr = 'fast'", "expected float"]),
        ("optim.lr=true", ["optim.lr = True", "expected float"]),
        ("model.layers=2.5", ["model.layers = 2.5", "expected int"]),
        ("model.encoder=sibert_a", ["did you mean 'sibert-a'"]),
        ("model.heads=5", ["model.width", "not divisible", "5"]),
        ("data.seq_len=4096", ["exceeds model.max_seq_len"]),
        ("optim.clip_c=1", ["C must exceed 1"]),
        ("optim.weight_decay=0", ["clip_c = inf"]),
        ("optim.lr=-1", ["optim.lr = -1.0", "above zero"]),
        ("optim.lr=nan", ["optim.lr = nan"]),
        ("optim.lr=1e6", ["erase the weights"]),
        ("model.head=paper", ["model.init = 'balanced'", "use 'normal'"]),
        ("optim.rule=adamw", ["equilibrium of SGD"]),
        ("model.head=tied", ["breaks SIBERT's invariance"]),
        ("optim.schedule.milestones=[1.5]", ["fractions of the run"]),
        ("optim.schedule.milestones=[0.9, 0.6]", ["[0.9, 0.6]", "in rising order"]),
        ("optim.schedule.milestones=[0.6, 0.6]", ["in rising order, each once"]),
        ("optim.schedule.factor=10", ["optim.schedule.factor = 10", "expected at most 1"]),
        ("optim.schedule.decay_fraction=1", ["optim.schedule.decay_fraction = 1.0: expected a number below 1"]),
        ("train.timeout_s=0.005", ["train.timeout_s = 0.005: at least 1"]),
        ("optim.betas=[0.9, 1.0]", ["optim.betas", "below 1"]),
        ("optim.betas=[0.9]", ["optim.betas = [0.9]"]),
        ("optim.schedule.warmup_steps=100000", ["not below train.steps"]),
        ("optim", ["section.key=value"]),
        ("optim.lr.x=1", ["is a value, not a section"]),
    ],
)
def test_a_bad_override_is_refused_by_name(override: str, words: list[str]) -> None:
    overrides = [override, "optim.schedule.decay=step"] if "milestones" in override else [override]
    with pytest.raises(ValueError) as refusal:
        load_recipe("tiny-untied", overrides)
    text = str(refusal.value)
    assert text.startswith(("recipe tiny-untied.toml with --set: ", f"--set {override}: "))
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize("decay", ["linear", "constant", "wsd"])
def test_milestones_without_step_decay(decay: str) -> None:
    with pytest.raises(
        ValueError, match=rf"optim.schedule.milestones = .*of decay = 'step', and decay is '{decay}' here"
    ) as refusal:
        load_recipe("base-paper", [f"optim.schedule.decay={decay}"])
    assert "set them to []" in str(refusal.value)
    assert (
        load_recipe("base-paper", [f"optim.schedule.decay={decay}", "optim.schedule.milestones=[]"]).optim.schedule.milestones
        == ()
    )


def test_a_warm_up_that_reaches_into_the_decay() -> None:
    with pytest.raises(
        ValueError, match=r"optim.schedule.warmup_steps = 95 reaches into the decay, the last 0.1 of train.steps = 100"
    ):
        load_recipe("tiny", ["optim.schedule.decay=wsd", "optim.schedule.warmup_steps=95", "train.steps=100"])


def numbers(section: type[BaseModel] = RunConfig, above: str = "") -> Iterator[str]:
    """The dotted key of every number of a configuration."""
    for name, field in section.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from numbers(type(field.default), f"{above}{name}.")
        elif type(field.default) in (int, float):
            yield above + name


@pytest.mark.parametrize("key", list(numbers()))
def test_no_number_is_negative_infinite_or_none(key: str) -> None:
    may_be_infinite = key in ("optim.clip_c", "optim.max_grad_norm")
    for value in ("-1", "nan", "-inf", *(() if may_be_infinite else ("inf",))):
        with pytest.raises(ValueError, match=rf"^recipe tiny-untied\.toml with --set: {key} = {value}.*(expected|at least)"):
            load_recipe("tiny-untied", [f"{key}={value}"])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"optim": 3}, "here: optim is a section of keys, got 3"),
        ([], "here: the configuration is a section of keys, got []"),
        ({"optim": {"betas": [0.9, True]}}, "here: optim.betas = True, expected float"),
        ({"optim": {"betas": [0.9]}}, "here: optim.betas = [0.9], expected tuple[float, float]"),
        ({"optim": {"schedule": {"milestones": 0.5}}}, "here: optim.schedule.milestones = 0.5, expected tuple[float, ...]"),
        ({"head_optim": {"lr": 200, "weight_decay": 0.01}}, "here: head_optim.lr * head_optim.weight_decay = 2: at 1 or more"),
        ({"head_optim": {"schedule": {"decay": "step"}}}, "here: head_optim.schedule.milestones = (): fractions of the run"),
        ({"train": {"step": 1}, "model": {"layers": 0}}, "here: unknown key 'train.step'; did you mean 'steps'?"),
    ],
)
def test_bad_values_are_refused_by_their_whole_name(values: Any, text: str) -> None:
    with pytest.raises(ValueError) as refusal:
        from_dict(values, "here")
    assert str(refusal.value).startswith(text)


def test_a_byte_order_mark_before_a_recipe_is_none_of_it(tmp_path: Path) -> None:
    """Some editors write one. Another encoding is named."""
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "base"\ntrain.steps = 77_000\n', encoding="utf-8-sig")
    assert load_recipe(str(mine)).train.steps == 77_000
    mine.write_text('description = "‖x‖"\n', encoding="utf-16")
    with pytest.raises(ValueError, match=rf"^{mine}: not UTF-8 .*save it as UTF-8"):
        load_recipe(str(mine))


def test_a_recipe_extends_another_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "base-paper"\ndescription = "mine"\noptim.schedule.factor = 0.2\n')
    (tmp_path / "deep").mkdir()
    own = tmp_path / "deep" / "own.toml"
    own.write_text('extends = "../mine.toml"\n[optim]\nclip_c = inf\n')
    expected = changed(
        load_recipe("base-paper"), {"description": "mine", "optim.schedule.factor": 0.2, "optim.clip_c": math.inf}
    )
    assert load_recipe(str(own)) == expected
    assert load_recipe(str(own), ["optim.clip_c=3"]) == changed(expected, {"optim.clip_c": 3})
    with pytest.raises(
        ValueError, match=r"^recipe own\.toml extends mine\.toml extends base-paper\.toml with --set: model\.layers = 0"
    ):
        load_recipe(str(own), ["model.layers=0"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('extends = "bose"', ["recipe own.toml: extends = 'bose'", "did you mean 'base'"]),
        ('extends = "gone.toml"', ["recipe own.toml: extends = 'gone.toml'", "no such recipe"]),
        ('learns_nats = "much"', ["recipe own.toml: learns_nats = 'much'", "expected nats, a number"]),
        ("extends = 3", ["recipe own.toml: extends = 3", "expected the name of a recipe"]),
        ('extend = "base"', ["recipe own.toml: unknown key 'extend'", "did you mean 'extends'"]),
        ('extends = "own.toml"', ["recipe own.toml: extends = 'own.toml'", "circle"]),
        ('extends = "other.toml"', ["recipe own.toml extends other.toml: extends = 'deep/../own.toml'", "circle"]),
        ('extends = "broken.toml"', ["broken.toml: not valid TOML"]),
        ('extends = "strange.toml"', ["recipe own.toml extends strange.toml: unknown key 'optm'", "did you mean 'optim'"]),
    ],
)
def test_what_cannot_be_extended_is_refused_in_a_line(tmp_path: Path, line: str, words: list[str]) -> None:
    own = tmp_path / "own.toml"
    own.write_text(line)
    (tmp_path / "deep").mkdir()
    (tmp_path / "other.toml").write_text('extends = "deep/../own.toml"')
    (tmp_path / "broken.toml").write_text("[optim")
    (tmp_path / "strange.toml").write_text("[optm]")
    with pytest.raises(ValueError) as refusal:
        load_recipe(str(own))
    text = str(refusal.value)
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize("name", ["base", "large"])
def test_the_paper_s_table_differs_in_c_alone(name: str) -> None:
    table = load_recipe(f"{name}-table")
    assert table == changed(load_recipe(f"{name}-paper"), {"description": table.description, "optim.clip_c": 4.0})


def test_a_configuration_is_changed_by_a_checked_copy() -> None:
    config = load_recipe("tiny-untied")
    other = changed(config, {"optim.lr": 1, "optim.clip_c": math.inf, "model.head": "invariant"})
    assert (other.optim.lr, other.optim.clip_c, config.optim.lr) == (1.0, math.inf, 0.32)
    assert changed(other, {"optim.lr": config.optim.lr, "optim.clip_c": config.optim.clip_c}) == config
    assert as_dict(other)["optim"]["clip_c"] == "inf"
    with pytest.raises(ValueError, match=r"with other model\.heads: model\.width = 128 is not divisible by model\.heads = 5"):
        changed(config, {"model.heads": 5})
    with pytest.raises(ValueError, match=r"unknown key 'optim\.rate'"):
        changed(config, {"optim.rate": 1.0})
    with pytest.raises(ValidationError, match="frozen"):
        config.optim.lr = 1.0  # type: ignore[misc]


def test_overrides_reach_every_kind_of_value() -> None:
    config = load_recipe(
        "tiny",
        [
            "optim.lr=1",
            "optim.clip_c=inf",
            "train.ds_config=zero2",
            "optim.betas=[0.8, 0.9]",
            "model.unigram_bias=false",
        ],
    )
    assert config.optim.lr == 1.0
    assert isinstance(config.optim.lr, float)
    assert math.isinf(config.optim.clip_c)
    assert config.train.ds_config == "zero2"
    assert config.optim.betas == (0.8, 0.9)
    assert config.model.unigram_bias is False


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'tiny'"):
        load_recipe("tinny")


def test_accumulation_follows_from_the_world_size() -> None:
    for world_size, accumulation in ((1, 8), (2, 4), (4, 2), (8, 1)):
        assert (
            batch_arithmetic(BatchConfig(global_sequences=64, micro_sequences=8), world_size).accumulation_steps == accumulation
        )


def test_an_indivisible_batch_names_all_numbers_and_a_batch_that_would_do() -> None:
    with pytest.raises(ValueError) as refusal:
        batch_arithmetic(BatchConfig(global_sequences=64, micro_sequences=8), 3)
    for word in ("64", "8", "world size 3", "24", "48 or 72"):
        assert word in str(refusal.value)
    assert batch_arithmetic(BatchConfig(global_sequences=48, micro_sequences=8), 3).accumulation_steps == 2
