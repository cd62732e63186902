"""Dropout is a function of (seed, step, sample, site), and of nothing else."""

import numpy as np
import pytest
import torch

from pipeline.config.load import changed, load_recipe
from pipeline.data.batch import Batch, rank_indices
from pipeline.data.dropout_keys import dropout_keys
from pipeline.init.normal import init_weights
from pipeline.model.dropout import Dropout, kept
from pipeline.model.task_model import TaskModel
from pipeline.tasks.samples import Row, TaskData

SEED, LENGTH = 20261128, 12
SMALL = {"model.layers": 2, "model.width": 16, "model.heads": 2, "model.ffn_width": 24, "model.init": "normal"}
CONFIG = changed(load_recipe("tiny-untied"), {**SMALL, "task.name": "mnli", "model.dropout": 0.5})

KNOWN_KEYS = [6453040684256621252, -5533618571400682272]
KNOWN_BITS = ["110101011111101110101001", "000001101111111101110111"]


def keys(*counters: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(dropout_keys(seed, np.array(counters, dtype=np.int64)))


def test_known_masks() -> None:
    """As they were when this was written: another mask on another machine or version would be another run."""
    assert keys(0, 1, seed=3).tolist() == KNOWN_KEYS
    assert ["".join("01"[int(bit)] for bit in row) for row in kept(keys(0, 1, seed=3), 2, 24, 1 << 15)] == KNOWN_BITS


def test_a_mask_depends_on_seed_sample_and_site_alone() -> None:
    whole = kept(keys(5, 6, 7), 1, 40, 1 << 15)
    assert torch.equal(whole[1:2], kept(keys(6), 1, 40, 1 << 15))
    assert torch.equal(whole[:, :17], kept(keys(5, 6, 7), 1, 17, 1 << 15))  # the length of a row changes nothing before it
    for other in (kept(keys(5, 6, 7), 2, 40, 1 << 15), kept(keys(5, 6, 7, seed=1), 1, 40, 1 << 15), whole[[1, 2, 0]]):
        assert 0.3 < (other == whole).float().mean() < 0.7


def test_the_mean_is_kept() -> None:
    drop = Dropout(0.1)
    x = torch.ones(8, 500, 32)
    y = drop(x, keys(*range(8)))
    dropped = (y == 0).float().mean().item()
    assert dropped == pytest.approx(0.1, abs=4 * (0.09 / x.numel()) ** 0.5)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.9], rel=1e-4)
    assert drop.eval()(x, keys(*range(8))) is x
    assert Dropout(0.1)(x, None) is x
    assert Dropout(0.0)(x, keys(*range(8))) is x


def data() -> TaskData:
    generator = np.random.default_rng(SEED)
    rows = [Row(generator.integers(5, 40, 4), generator.integers(5, 40, 3), (int(generator.integers(3)),)) for _ in range(10)]
    return TaskData(rows, LENGTH, SEED)


def gradients(micro: int, ranks: int, checkpointing: bool = False) -> dict[str, torch.Tensor]:
    """Of the global batch of step 1, 8 samples, however it is divided."""
    model = TaskModel(CONFIG, 40, 3).double()
    init_weights(model, CONFIG.model, SEED)
    model.encoder.activation_checkpointing = checkpointing
    parts = 8 // micro
    for part in range(parts // ranks):
        for rank in range(ranks):
            batch: Batch = data().batch(rank_indices(1, part, rank, ranks, 8, micro))
            batch = batch.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
            (model(batch).loss / parts).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("micro", "ranks", "checkpointing"), [(4, 1, False), (2, 2, False), (1, 8, False), (8, 1, True)])
def test_a_step_is_the_same_however_it_is_divided(micro: int, ranks: int, checkpointing: bool) -> None:
    whole, divided = gradients(8, 1), gradients(micro, ranks, checkpointing)
    for name, gradient in whole.items():
        torch.testing.assert_close(divided[name], gradient, rtol=1e-9, atol=1e-12)


def test_every_site_has_its_own_masks() -> None:
    model = TaskModel(CONFIG, 40, 3)
    sites = [module.site for module in model.modules() if isinstance(module, Dropout)]
    assert sites == list(range(2 * 2 + 1 + 1))  # two a layer, the embeddings', the head's


@pytest.mark.parametrize("encoder", ["sibert-a", "sibert-d"])
@pytest.mark.parametrize("task", ["mnli", "squad1"])
def test_an_invariant_head_leaves_the_loss_invariant_dropout_included(encoder: str, task: str) -> None:
    values = {"model.encoder": encoder, "model.head": "invariant", "task.head": "invariant", "task.name": task}
    config = changed(CONFIG, values)
    model = TaskModel(config, 40, 3).double()
    init_weights(model, config.model, SEED)
    assert model.scale_invariant_names() == {name for name, _ in model.named_parameters()}
    rows = data().rows if task == "mnli" else [row._replace(labels=(6, 7)) for row in data().rows]
    batch = TaskData(rows, LENGTH, SEED).batch(np.arange(6)).map(lambda t: t.double() if t.is_floating_point() else t)
    before = model(batch).loss.item()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(37.0)
    assert model(batch).loss.item() == pytest.approx(before, rel=1e-12)
    assert before != model.eval()(batch).loss.item()  # dropout was there


def test_pretraining_has_none() -> None:
    with pytest.raises(ValueError, match=r"model\.dropout = 0\.1 is of fine-tuning"):
        changed(load_recipe("tiny-untied"), {"model.dropout": 0.1})
