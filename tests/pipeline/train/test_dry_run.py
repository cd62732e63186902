"""The dry run's bytes are those of DeepSpeed's buffers, bytes per parameter as they were counted in its source."""

from pathlib import Path

import pytest

from pipeline.config.load import load_recipe
from pipeline.memory.states import bytes_per_rank
from pipeline.memory.system import System
from pipeline.train.dry_run import dry_run, sizes

N, PARAMETERS = 4, 1000
# weights and masters (split ones 2 bytes), gradient, host: bytes per parameter at N ranks, SGD
EXPECTED = {
    "zero0": (4, 4, None),
    "zero1": (4 + 4 / N, 4, None),
    "zero2": (4 + 4 / N, 4 / N, None),
    "zero3": (8 / N, 4 / N, None),
    "zero0-bf16": (2 + 4, 2, None),
    "zero1-bf16": (2 + 2 / N, 2, None),
    "zero2-bf16": (2 + 2 / N, 2 / N, None),
    "zero3-bf16": (4 / N, 2 / N, None),
    "zero2-offload-bf16": (2, 2 / N, 8 / N),
    "zero3-offload": (4 / N, 0, 12 / N),
}


def system(name: str, *settings: str) -> System:
    return System("it", load_recipe("tiny", [f"train.ds_config={name}", *settings]), 8192, N)


@pytest.mark.parametrize("name", EXPECTED)
def test_bytes_of_sgd(name: str) -> None:
    memory = bytes_per_rank({"sgd": PARAMETERS}, system(name))
    weights, gradient, host = EXPECTED[name]
    assert (memory["weights"], memory["gradient"]) == (weights * PARAMETERS, gradient * PARAMETERS)
    assert memory.get("host") == (None if host is None else host * PARAMETERS)
    assert memory.get("optimizer", 0) == 0


def test_masters_that_are_not_split_take_two_bytes_more() -> None:
    split, whole = (
        bytes_per_rank({"sgd": PARAMETERS}, system("zero1-bf16", f"train.split_masters={is_split}"))
        for is_split in ("true", "false")
    )
    assert whole["weights"] - split["weights"] == 2 / N * PARAMETERS


def test_accumulation_keeps_a_second_gradient_of_an_offloaded_stage_2() -> None:
    batches = (("batch.micro_sequences=2", f"batch.global_sequences={sequences}") for sequences in (2 * N, 4 * N))
    once, twice = (bytes_per_rank({"sgd": PARAMETERS}, system("zero2-offload-bf16", *batch)) for batch in batches)
    assert twice["host"] - once["host"] == 2 / N * PARAMETERS


@pytest.mark.parametrize(("name", "share"), [("zero0", 1), ("zero1", N), ("zero3-bf16", N)])
def test_adam_adds_its_two_moments(name: str, share: int) -> None:
    sgd, adam = (bytes_per_rank({rule: PARAMETERS}, system(name)) for rule in ("sgd", "adamw"))
    assert sum(adam.values()) - sum(sgd.values()) == 8 * PARAMETERS // share


def test_the_sizes_of_a_run_whose_corpus_is_yet_to_be_built(corpus: Path) -> None:
    """Are those that the dry run finds when it is there."""
    config = load_recipe("tiny")
    found = dry_run(config, "tiny", corpus, None, 2)
    assert sizes(config, found["vocab_size"], 2).items() <= found.items()


def test_admins_shortcuts_are_counted() -> None:
    """A vector of the width for each sub-layer; AdamW keeps two moments of it, too."""
    plain, admin = (load_recipe("tiny-bert", [f"model.init={init}"]) for init in ("normal", "admin"))
    omegas = 2 * plain.model.layers * plain.model.width
    before, after = (sizes(config, 1024, 1) for config in (plain, admin))
    assert after["parameters"] - before["parameters"] == omegas
    assert after["checkpoint_bytes"] - before["checkpoint_bytes"] == 3 * 4 * omegas
