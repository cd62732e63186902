"""What is predicted is what is measured; and what was done to make it small changes no number of a run."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from pipeline.config.batch import BatchArithmetic
from pipeline.config.ds_config import deepspeed_dictionary, load_ds_config
from pipeline.config.load import as_dict
from pipeline.memory.compare import predicted_rows, systems
from pipeline.memory.live import LiveBytes
from pipeline.memory.measure import measure
from pipeline.memory.partition import fullest_rank
from pipeline.memory.predict import NotPredicted, predict
from pipeline.memory.system import GRADIENTS, KINDS, WORKSPACE, System, random_micro_batch, with_layers
from pipeline.memory.trace import Kinds, Meter
from pipeline.model import relu_attention
from pipeline.model.build import build_model, skeleton
from pipeline.optim.groups import in_parts, parameter_groups
from tests.helpers.ranks import RankServer
from tests.helpers.running import long, refused
from tests.helpers.weighed_systems import BERT, PAPER, SIBERT, recipe, system


@pytest.mark.parametrize(
    "weighed",
    [
        system(SIBERT, "zero1-bf16"),
        *long(
            system(SIBERT, "zero3", 2, "batch.global_sequences=8", "train.activation_checkpointing=true"),
            system(BERT, "zero2-bf16", 2, "batch.global_sequences=8"),
            system((*BERT, "model.init=admin"), "zero3-bf16"),
            system(PAPER, "zero0-bf16", 1, "train.activation_checkpointing=true"),
            system(SIBERT, "zero1", 2, "batch.global_sequences=16"),
            system(PAPER, "zero2-bf16", 1, "batch.global_sequences=8"),
        ),
    ],
    ids=lambda s: f"{s.world_size}x{s.config.train.ds_config}",
)
def test_prediction_is_within_5_percent_of_live_bytes_and_10_of_peaks(weighed: System) -> None:
    predicted, measured = predict(weighed), measure(weighed)
    for moment, kinds in predicted.live.items():
        assert sum(kinds.values()) == pytest.approx(measured.live[moment], rel=0.05), moment
    for moment in ("backward", "step"):
        assert sum(predicted.peak[moment].values()) == pytest.approx(measured.peak[moment], rel=0.10), moment
    assert predicted.largest == pytest.approx(measured.largest, rel=0.10)
    assert len(measured.losses) == 5 * (2 if weighed.accumulates else 1)


def test_the_largest_copy_of_the_update_is_small() -> None:
    """bf16 under ZeRO 1 on one rank: 2 + 4 + 2 bytes and little more, where all at once it is 6 more. Split masters take 2 less
    and copy no gradient to fp32."""

    def bytes_a_parameter(*settings: str, without: str = "") -> float:
        predicted = predict(system(SIBERT, "zero1-bf16", 1, *settings))
        return sum(size for kind, size in predicted.peak["step"].items() if kind != without) / predicted.parameters

    whole, at_once, in_parts = "train.split_masters=false", "train.update_elements=0", "train.update_elements=100000"
    assert bytes_a_parameter(whole, at_once) == pytest.approx(14, abs=0.01)
    assert bytes_a_parameter(whole, in_parts) < 9.5
    assert bytes_a_parameter(in_parts) < 9.5
    assert bytes_a_parameter(in_parts, without=WORKSPACE) < 6.1  # whose pieces are as large as a large model's


def test_parts_hold_every_parameter_once_and_are_as_small_as_they_are_said_to_be() -> None:
    config = recipe(PAPER, "train.update_elements=0")
    whole = parameter_groups(skeleton(config, 4096), config)
    parts = in_parts(whole, 50_000)
    names = [name for part in parts for name in part["names"]]
    assert sorted(names) == sorted(name for group in whole for name in group["names"])
    assert len(names) == len(set(names))
    freed, total = 0, sum(p.numel() for group in whole for p in group["params"])
    for part in parts:
        size = sum(p.numel() for p in part["params"])
        assert size <= max(50_000, total // 64, freed // 3) or len(part["params"]) == 1
        freed += size
    assert len(parts[0]["params"]) > 1
    for part in parts:
        (group,) = [group for group in whole if part["names"][0] in group["names"]]
        assert all(part[key] == group[key] for key in group if key not in ("names", "params"))
    assert in_parts(whole, 0) == whole


@pytest.mark.parametrize("kind", [SIBERT, PAPER, BERT], ids=["sibert-d", "sibert-a", "bert"])
def test_activation_checkpointing_changes_no_gradient(kind: tuple[str, ...]) -> None:
    gradients = []
    for setting in ("false", "true"):
        weighed = system(kind, "zero1", 1, f"train.activation_checkpointing={setting}")
        torch.manual_seed(0)
        model = build_model(weighed.config, weighed.vocab_size)
        model(random_micro_batch(weighed, torch.Generator())).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None
        assert torch.equal(gradient, gradients[1][name]), name


def test_activation_checkpointing_keeps_one_tensor_a_layer() -> None:
    kept = []
    for setting in ("false", "true"):
        weighed = system(SIBERT, "zero1", 1, f"train.activation_checkpointing={setting}")
        kept.append(predict(with_layers(weighed, 8)).live["forward"]["activations"])
    assert kept[1] < kept[0] / 5


def test_live_bytes_see_temporaries_and_what_other_threads_release() -> None:
    import threading

    with LiveBytes(torch.device("cpu")) as live:
        held = [torch.zeros(250_000)]
        live.mark("made")
        torch.linalg.vector_norm(torch.zeros(100_000).double())
        live.mark("temporary")
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()
        live.mark("released")
    assert live.stretches["made"].end == 1_000_000
    assert live.stretches["temporary"].peak == pytest.approx(2_200_000, abs=100)
    assert live.stretches["temporary"].end == 1_000_000
    assert live.stretches["released"].end < 100


def test_mechanics_that_are_not_written_down_are_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(NotPredicted, match="offloads the optimiser"):
        predict(system(SIBERT, "zero1-offload"))
    mechanics = load_ds_config("zero2-bf16")
    for change, words in (
        ({"zero_optimization": {**mechanics["zero_optimization"], "contiguous_gradients": True}}, "contiguous_gradients"),
        ({"communication_data_type": "fp32"}, "in fp32"),
    ):
        path = tmp_path / "own.json"
        path.write_text(json.dumps({**mechanics, **change}))
        with pytest.raises(NotPredicted, match=words):
            predict(system(SIBERT, str(path)))


def test_the_dry_run_of_what_is_not_predicted_says_the_rest(
    rank_server: RankServer, little_corpus: Path, tmp_path: Path
) -> None:
    plan = ["pretrain", "--recipe", "tiny", "--data", little_corpus, "--run", tmp_path / "run", "--dry-run", "--json"]
    done = rank_server.run([*plan, "--set", "train.ds_config=zero1-offload"]).completed()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predicted_peak_bytes_per_rank"] is None
    refused(rank_server.run([*plan, "--gpu-gib", "0.02"]).completed(), "at the peak of a step", "such a GPU has 20.5 MiB")


def largest_share(groups: Sequence[Mapping[str, int]], ranks: int) -> int:
    """Of all ranks, the most elements of tensors of which one has a part: each tensor is counted at every rank it touches."""
    held = np.zeros(ranks + 1, dtype=np.int64)
    for sizes in groups:
        each, start = -(-sum(sizes.values()) // (2 * ranks)) * 2, 0
        for size in sizes.values():
            held[start // each] += size
            held[(start + size - 1) // each + 1] -= size
            start += size
    return int(held.cumsum().max())


@pytest.mark.parametrize("ranks", [2, 3, 7, 64, 10**6])
def test_the_rank_that_holds_most_is_found_among_few(ranks: int) -> None:
    for kind, ds_config, low in ((PAPER, "zero1", 4), (SIBERT, "zero2-bf16", 2)):
        weighed = system(kind, ds_config, ranks)
        groups = parameter_groups(skeleton(weighed.config, weighed.vocab_size), weighed.config)
        sizes = [{n: p.numel() for n, p in zip(g["names"], g["params"], strict=True)} for g in groups]
        expected = low * largest_share(sizes, ranks)
        assert fullest_rank(weighed).held_gradients == expected
        assert predict(weighed).live["backward"][GRADIENTS] == expected


def test_the_report_of_either_system_has_the_other_beside_it() -> None:
    mechanics = deepspeed_dictionary(load_ds_config("zero1"), BatchArithmetic(2, 4, 2, 16))
    for kind, count in ((SIBERT, 3), (BERT, 2)):
        rows = predicted_rows({"vocab_size": 4096}, as_dict(recipe(kind)), mechanics)
        assert [row.system.world_size for row in rows] == [2] * count
        assert len({row.system.name for row in rows}) == count
    assert predicted_rows({}, {}, {}) == []
    assert predicted_rows({"vocab_size": 4096}, as_dict(recipe(SIBERT, "train.ds_config=zero1-offload")), mechanics) == []


def test_versus_adam_is_the_same_shape_and_batch() -> None:
    config = recipe(SIBERT)
    found = systems(config, 4096, 2, [1, 3], "adam")
    assert [s.name for s in found[:4]] == [
        *("SIBERT + SGD, invariant head", "SIBERT + SGD, paper head", "BERT + AdamW", "BERT + AdamW, all at once")
    ]
    assert [s.stage for s in found] == [1] * 4 + [3] * 4
    in_bf16 = systems(recipe(SIBERT, "train.ds_config=zero1-bf16"), 4096, 2, [0, 1], "adam")
    assert [s.stage for s in in_bf16 if s.name == "BERT + AdamW, fp32 masters"] == [1]
    assert [s.splits_masters for s in in_bf16 if s.stage == 1] == [True, True, True, False, False]
    for other in found:
        for section in ("data", "batch"):
            assert getattr(other.config, section) == getattr(config, section)
        start = {"init": "normal", "score_offset": 0.0}
        shape = other.config.model.model_copy(update={"encoder": "sibert-d", "head": "invariant", **start})
        assert shape == config.model.model_copy(update=start)


def test_the_command_line(rank_server: RankServer, tmp_path: Path) -> None:
    arguments = ["--recipe", "tiny-untied", "--vocab-size", "1024", "--versus", "adam", "--world-size", "8", "--zero", "0", "3"]

    def memory(*more: str | Path) -> subprocess.CompletedProcess[str]:
        return rank_server.run(["memory", *arguments, *more]).completed()

    done = memory("--format", "json", "--gpu-gib", "0.1", "--png", tmp_path / "it.png")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 8
    for row in rows:
        assert row["world_size"] == 8
        assert set(row["predicted"]["peak"]["backward"]) <= set(KINDS)
        assert row["largest_micro_batch"] > 0
        assert row["most_layers"] > 2
    assert (tmp_path / "it.png").stat().st_size > 10_000
    table = memory("--zero", "3")
    assert "SIBERT + SGD, invariant head: 665,600 parameters, ZeRO 3, fp32, 8 ranks, 16 x 64 tokens" in table.stdout
    page = memory("--format", "html")
    assert page.stdout.startswith("<!doctype html>")
    assert page.stdout.count("<svg") == 2


@pytest.mark.long
def test_measured_from_the_command_line(rank_server: RankServer) -> None:
    arguments = ["memory", "--recipe", "tiny", "--vocab-size", "1024", "--measure", "--format", "json"]
    done = rank_server.run(arguments, timeout_s=300).completed()
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["measured"]["device"] == "cpu"
    assert row["measured"]["peak_rss"] > row["predicted"]["largest"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--recipe", "tiny", "--zero", "4"], ["--zero 4", "0 to 3"]),
        (["--recipe", "tiny", "--world-size", "0"], ["--world-size 0", "above zero"]),
        (["--recipe", "tiny", "--micro-batch", "-1"], ["--micro-batch -1"]),
        (["--recipe", "tiny", "--seq-len", "4096"], ["data.seq_len = 4096", "max_seq_len"]),
        (["--recipe", "tiny", "--vocab-size", "3"], ["--vocab-size 3"]),
        (["--recipe", "tiny", "--data", "nowhere"], ["nowhere"]),
        (["--recipe", "tiny", "--gpu-gib", "nan"], ["--gpu-gib nan"]),
        (["--recipe", "tiny", "--gpu-gib", "inf"], ["--gpu-gib inf"]),
        (["--recipe", "tiny", "--set", "model.width=100000000000", "--set", "model.heads=1"], ["model.width = 100,000"]),
        (["--recipe", "tiny", "--vocab-size", "10000000000"], ["--vocab-size 10000000000"]),
        (["--recipe", "tiny", "--set", "model.layers=1000000"], ["model.layers = 1,000,000", "at most 1,000"]),
        (["--recipe", "tiny", "--set", "train.ds_config=zero1-offload"], ["offloads"]),
    ],
)
def test_a_bad_request(rank_server: RankServer, options: list[str], words: list[str]) -> None:
    refused(rank_server.run(["memory", *options]).completed(), *words)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_first_blocks_of_attention_take_what_all_take(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tensors without numbers only these are gone through: all of them cost a minute at the size of `base`."""
    monkeypatch.setattr(relu_attention, "MOST_SCORES", 2 * 2 * 64)  # two queries a block, 32 blocks

    def peaks(blocks: int) -> list[Kinds]:
        monkeypatch.setattr(relu_attention, "TRACED_BLOCKS", blocks)
        meter = Meter((0, 0))
        with FakeTensorMode(), meter:
            q, k, v = (torch.empty(1, 2, 64, 16, dtype=dtype, requires_grad=True) for _ in range(3))
            out = relu_attention.ReluAttention.apply(q, k, v, 2)
            forward = meter.take_peak()
            out.sum().backward()
            return [forward, meter.take_peak()]

    assert peaks(relu_attention.TRACED_BLOCKS) == peaks(32)
    assert peaks(1) != peaks(32)
