"""fp32 masters as bf16 parameters and 16 bits more: every bit pattern, every rule, and whole runs beside whole masters."""

import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.checkpoint.layout import step_directories
from pipeline.checkpoint.reader import Checkpoint
from pipeline.optim import fp32_vector
from pipeline.optim.fp32_vector import Fp32Vector
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.partitions import Fragment, Partitions
from pipeline.run.metrics_file import read_metrics
from tests.helpers.ranks import WITHOUT_REPORT, Death, RankServer
from tests.helpers.running import PAPER_MODEL, SMALL, set_options
from tests.helpers.split_masters import split

HALVES = [0x0000, 0x0001, 0x007F, 0x0080, 0x3F80, 0x3F81, 0x7F7E, 0x7F7F]  # zero, subnormal, normal, one, the largest
RULES = {
    "sgd": {"lr": 0.1, "weight_decay": 0.05, "clip_c": 2.0, "clip_set": "all"},
    "lamb": {"lr": 0.01, "weight_decay": 0.02, "betas": (0.9, 0.999), "eps": 1e-6},
    "adamw": {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.99), "eps": 1e-6, "max_grad_norm": 1.0, "clip_set": "all"},
}
SIZE = 1000
STOP = Death(0, "batch", 10, signal=signal.SIGTERM)


@pytest.mark.parametrize("sign", [0, 0x8000])
@pytest.mark.parametrize("upper", HALVES)
def test_every_lower_half_comes_back_and_the_parameter_is_the_nearest(upper: int, sign: int) -> None:
    bits = torch.tensor((sign | upper) << 16) + torch.arange(2**16)
    values = torch.where(bits < 2**31, bits, bits - 2**32).to(torch.int32).view(torch.float32)
    vector = split(values)
    assert torch.equal(vector.high.view(torch.int16), values.to(torch.bfloat16).view(torch.int16))
    off = vector.values().view(torch.int32).long() - values.view(torch.int32).long()
    tie = 2**15 if upper % 2 == 0 else None  # between two parameters, of which the lower one is even
    assert off.nonzero().flatten().tolist() == [tie] * (tie is not None)
    assert off.sum().item() == -(tie is not None)
    again = split(vector.values())
    assert torch.equal(again.values().view(torch.int32), vector.values().view(torch.int32))
    assert torch.equal(again.high.view(torch.int16), vector.high.view(torch.int16))


def optimizer_over(rule: str, start: Tensor, is_split: bool) -> tuple[PretrainingOptimizer, Fragment]:
    vector = split(start) if is_split else Fp32Vector(start.clone())
    flat = vector.high.requires_grad_()
    optimizer = PretrainingOptimizer([{"name": "all", "names": ["x"], "params": [flat], "rule": rule, **RULES[rule]}])
    if vector.low is not None:
        optimizer.remainders[flat] = vector.low
    fragment = Fragment("x", 0, 0, SIZE, flat, 0, lambda: flat.grad, vector.low)
    optimizer.attach(Partitions((fragment,), None, 1, torch.device("cpu")))
    return optimizer, fragment


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_updates_split_masters_bit_for_bit_as_whole_ones(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clipped, not clipped, without gradient; in pieces of whole CPU vectors, whose last numbers are rounded in another way.
    There is no tie among these numbers (seeds 0 to 4)."""
    monkeypatch.setattr(fp32_vector, "CHUNK_ELEMENTS", 320)
    start = torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    both = [optimizer_over(rule, start, is_split) for is_split in (False, True)]
    for step, size in enumerate((0.01, 30.0, None, 1.0), start=1):
        gradient = torch.randn(SIZE, generator=torch.Generator().manual_seed(step)).bfloat16()
        for optimizer, fragment in both:
            fragment.flat.grad = None if size is None else (size * gradient).to(fragment.flat.dtype)
            optimizer.prepare()
            optimizer.step()
            optimizer.finish()
        (whole, held), (parts, pieces) = both
        assert whole.last_decision == parts.last_decision
        assert torch.equal(held.master.values(), pieces.master.values())
        assert torch.equal(pieces.flat, held.flat.to(torch.bfloat16))
        if rule != "sgd":
            assert all(torch.equal(a, b) for a, b in zip(whole.moment_views(held), parts.moment_views(pieces), strict=True))
    assert not torch.equal(both[0][1].master.values(), start)


@pytest.mark.parametrize(("stage", "ranks"), [(3, 2), *(pytest.param(*of, marks=pytest.mark.long) for of in ((1, 1), (2, 2)))])
def test_a_run_with_split_masters_is_the_run_with_whole_ones(
    rank_server: RankServer, little_corpus: Path, tmp_path: Path, stage: int, ranks: int
) -> None:
    """Half of it with each, too: the switch may be changed from start to start. Losses are equal bit for bit, masters but for
    the last bits of those that were a tie once."""
    options = [
        *SMALL,
        *set_options(train__steps=16, train__log_every_steps=1, train__checkpoint_every_steps=8, model__score_offset=1.5),
        *PAPER_MODEL,
        *set_options(train__ds_config=f"zero{stage}-bf16"),
    ]
    runs = {}
    for name, parts in {"whole": ["false"], "split": ["true"], "both": ["true", "false"]}.items():
        run = tmp_path / name
        for number, split_masters in enumerate(parts, start=1):
            stop = set_options(train__split_masters=split_masters)
            arguments = ["pretrain", "--recipe", "tiny-untied", "--data", little_corpus, "--run", run, *options, *stop]
            at_half = STOP if number < len(parts) else None
            done = rank_server.run(arguments, ranks, die=at_half, skip=WITHOUT_REPORT)
            assert done.codes == [75 if at_half else 0] * ranks, done.stderr
        losses = [row["loss"] for part in read_metrics(run / "metrics.jsonl") for row in part if row["kind"] == "train"]
        runs[name] = losses, Checkpoint(step_directories(run)[0])
    (losses, whole), *others = runs.values()
    assert len(losses) == 16
    for other_losses, other in others:
        assert other_losses == losses
        a, b = (
            torch.cat([found.whole("param", name).flatten().view(torch.int32).long() for name in whole.manifest["parameters"]])
            for found in (whole, other)
        )
        assert (a - b).abs().max() <= 4
        assert (a != b).float().mean() <= 1e-3
