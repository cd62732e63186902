"""A checkpoint on disk: whole or not there, never fooled by damage, read in parts. No processes but the run that made it."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pipeline.checkpoint import reader as stored
from pipeline.checkpoint import resume as choose
from pipeline.checkpoint.layout import MANIFEST
from pipeline.checkpoint.reader import Checkpoint
from pipeline.checkpoint.resume import newest
from pipeline.distributed.ranks import Ranks
from pipeline.optim.groups import parameter_groups
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.partitions import Fragment, Partitions, replicated
from pipeline.run.trained import load_run
from tests.helpers.damaged_checkpoints import DAMAGES, flip_a_bit, newest_shard, reseal
from tests.helpers.ranks import WITHOUT_REPORT, RankServer
from tests.helpers.running import PAPER_MODEL, SMALL, set_options

PAPER = [*PAPER_MODEL, *set_options(train__steps=4, train__checkpoint_every_steps=2)]


@pytest.fixture(scope="module")
def finished(rank_server: RankServer, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 2 ranks with SGD and LAMB: checkpoints of steps 2 and 4."""
    run = tmp_path_factory.mktemp("finished") / "run"
    done = rank_server.run(pretrain(corpus, run), 2, skip=WITHOUT_REPORT)
    assert done.codes == [0, 0], done.stderr
    return run


def pretrain(corpus: Path, run: Path) -> list[str | Path]:
    return ["pretrain", "--recipe", "tiny", "--data", corpus, "--run", run, *SMALL, *PAPER]


def assert_refused(rank_server: RankServer, corpus: Path, run: Path, words: str) -> None:
    """By one line and exit 2, on two ranks, without a step."""
    done = rank_server.run(pretrain(corpus, run), 2, skip=WITHOUT_REPORT)
    assert done.codes == [2, 2]
    (line,) = done.stderr.splitlines()
    assert words in line
    assert "going on" not in done.stdout


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_before_a_tensor_is_loaded_and_the_older_one_is_used(
    run: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaging, words = DAMAGES[damage]
    damaging(run)
    monkeypatch.setattr(stored, "safe_open", lambda *_, **__: pytest.fail("a tensor file was opened"))
    complaints: list[str] = []
    found = newest(run, complaints.append)
    assert found is not None
    assert found.step == 2
    (complaint,) = complaints
    assert complaint.startswith("ALARM")
    assert "step-00000004" in complaint
    assert words in complaint


@pytest.mark.parametrize("seed", range(40))
def test_any_flipped_bit_of_any_file_is_found(run: Path, seed: int) -> None:
    """Random files and places, the manifest's among them (seeds 0 to 39)."""
    files = sorted((run / "checkpoints" / "step-00000004").iterdir())
    flip_a_bit(files[seed % len(files)], seed)
    complaints: list[str] = []
    found = newest(run, complaints.append)
    assert found is not None
    assert (found.step, len(complaints)) == (2, 1)


def test_a_latest_that_points_at_nothing_is_said_and_the_newest_is_used(run: Path) -> None:
    (run / "checkpoints" / "latest").write_text("step-00000099\n")
    complaints: list[str] = []
    found = newest(run, complaints.append)
    assert found is not None
    assert found.step == 4
    assert "'step-00000099', which is not there" in complaints[0]


def test_half_written_directories_are_never_read(run: Path) -> None:
    checkpoints = run / "checkpoints"
    for why in ("writing", "replaced", "deleting"):
        shutil.copytree(checkpoints / "step-00000004", checkpoints / f".{why}-step-00000006")
    found = newest(run, pytest.fail)
    assert found is not None
    assert found.step == 4


def test_no_whole_checkpoint_among_several_is_an_error_and_not_a_new_start(run: Path) -> None:
    for shard in run.glob("checkpoints/step-*/rank-00000*"):
        shard.write_bytes(b"")
    with pytest.raises(ValueError, match="2 checkpoints and none is whole; --fresh starts over"):
        newest(run, lambda text: None)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("model.width", lambda made: made["config"]["model"].update(width=64)),
        ("train.seed", lambda made: made["config"]["train"].update(seed=1)),
        ("tokenizer_sha256", lambda made: made.update(tokenizer_sha256="0" * 64)),
        ("corpus_sha256", lambda made: made.update(corpus_sha256="0" * 64)),
    ],
)
def test_a_checkpoint_of_another_model_tokenizer_or_corpus_is_an_error_that_names_the_field(
    rank_server: RankServer,
    run: Path,
    corpus: Path,
    field: str,
    change: Callable[[dict], None],  # type: ignore[type-arg]
) -> None:
    reseal(run / "checkpoints/step-00000004", lambda values: change(values["made_from"]))
    with pytest.raises(ValueError, match=field):
        load_run(run, corpus)
    assert_refused(rank_server, corpus, run, field)


def test_parameters_that_are_not_the_models_are_found_before_they_are_loaded(run: Path) -> None:
    found = Checkpoint(run / "checkpoints/step-00000004")
    shapes = dict(found.manifest["parameters"])
    found.check_covers(shapes)
    name = next(iter(shapes))
    with pytest.raises(ValueError, match=f"{name} is .* there, missing here"):
        found.check_covers({k: v for k, v in shapes.items() if k != name})
    with pytest.raises(ValueError, match=f"parameter {name}"):
        found.check_covers({**shapes, name: [3, 5]})
    found._pieces["param", name].pop()
    with pytest.raises(ValueError, match=f"{name} has .* elements without a gap or an overlap"):
        found.check_covers(shapes)


def test_a_probe_loss_that_is_not_the_stored_one_is_refused(rank_server: RankServer, run: Path, corpus: Path) -> None:
    reseal(run / "checkpoints/step-00000004", lambda values: values["probe"].update(loss=values["probe"]["loss"] + 0.01))
    with pytest.raises(ValueError, match="this is another function"):
        load_run(run, corpus)
    assert_refused(rank_server, corpus, run, "this is another function")


def test_what_is_recomputed_differently_is_refused(rank_server: RankServer, run: Path, corpus: Path) -> None:
    """A stored learning rate that this program would not give at that step."""
    reseal(run / "checkpoints/step-00000004", lambda values: values["progress"].update(lr=0.123))
    assert_refused(rank_server, corpus, run, "lr after step 4 was 0.123")


def test_no_clip_threshold_is_stored(run: Path) -> None:
    """It follows from the norms of the moment; DeepSpeed's own checkpoints restore clip_grad over what is configured."""
    text = (run / "checkpoints/step-00000004" / MANIFEST).read_text()
    progress = json.loads(text)["progress"]
    assert not [key for key in (*progress, *progress["statistics"]) if "threshold" in key or "grad" in key]
    assert "clip_grad" not in text
    for shard in (run / "checkpoints/step-00000004").glob("rank-*"):
        with safe_open(shard, framework="pt") as file:
            assert {key.split("|")[0] for key in file.keys()} <= {"param", "exp_avg", "exp_avg_sq", "rng", "window"}  # noqa: SIM118


def test_parts_are_read_across_fragments_and_only_their_bytes(run: Path) -> None:
    found = Checkpoint(run / "checkpoints/step-00000004")
    generator = random.Random(0)
    whole = {name: found.whole("param", name).flatten() for name in found.manifest["parameters"]}
    assert sum(len(pieces) > 1 for pieces in found._pieces.values()) > 0, "no parameter is cut: the test tests nothing"
    for name, expected in whole.items():
        low = generator.randrange(expected.numel())
        high = generator.randrange(low, expected.numel()) + 1
        found.bytes_read = 0
        assert torch.equal(found.read("param", name, low, high - low), expected[low:high])
        assert found.bytes_read == 4 * (high - low)


def test_a_checkpoint_has_the_rights_of_its_directory(run: Path) -> None:
    """safetensors makes files that only their owner can read; a run is often a group's."""
    assert newest_shard(run).stat().st_mode & 0o777 == (run / "checkpoints").stat().st_mode & 0o666


def test_choosing_agrees_among_ranks_when_one_sees_damage(run: Path) -> None:
    """Rank 1 of 2 finds its share damaged: rank 0, whose share is whole, passes the checkpoint over, too."""
    flip_a_bit(newest_shard(run, 0))  # files sorted: probe, rank 0, rank 1; the second rank hashes rank 0's
    whole = Checkpoint(run / "checkpoints/step-00000004")
    whole.verify(0, 2)
    with pytest.raises(ValueError, match="rank-00000-of-00002"):
        whole.verify(1, 2)
    assert choose.newest(run, lambda text: None).step == 2  # type: ignore[union-attr]


def test_a_rank_reads_the_bytes_that_it_owns_and_no_others(run: Path, corpus: Path) -> None:
    """Of three ranks that cut every tensor in three, under the names of the run's two."""
    config, _, model, _ = load_run(run, corpus)
    groups = parameter_groups(model, config)
    found, read = Checkpoint(run / "checkpoints/step-00000004"), []
    for rank in range(3):
        optimizer = PretrainingOptimizer(groups)
        fragments = [
            Fragment(f.name, f.group, low, high - low, torch.zeros(high - low), 0, lambda: None)
            for f in replicated(list(model.named_parameters()), optimizer.all_groups).fragments
            for low, high in [(f.numel * rank // 3, f.numel * (rank + 1) // 3)]
        ]
        optimizer.attach(Partitions(tuple(fragments), None, 1, torch.device("cpu")))
        found.bytes_read = 0
        found.load_fragments(optimizer)
        kinds = {f.name: 1 if groups[f.group]["rule"] == "sgd" else 3 for f in fragments}
        assert found.bytes_read == sum(4 * f.numel * kinds[f.name] for f in fragments)
        read.append(found.bytes_read)
        for fragment in fragments:
            part = found.whole("param", fragment.name).flatten()[fragment.offset : fragment.offset + fragment.numel]
            assert torch.equal(fragment.master.values(), part)
    assert max(read) < 0.4 * sum(read)


def test_a_copy_under_another_steps_name_is_passed_over(run: Path) -> None:
    shutil.copytree(run / "checkpoints/step-00000004", run / "checkpoints/step-00000099")
    complaints: list[str] = []
    found = newest(run, complaints.append)
    assert found is not None
    assert found.step == 4
    assert "holds the checkpoint of step 4" in complaints[0]


@pytest.mark.parametrize("left", ["latest", "summary.json"])
def test_checkpoints_that_are_all_gone_are_an_error_and_not_a_new_start(run: Path, left: str) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    if left == "latest":
        (run / "summary.json").unlink()
        (run / "checkpoints/latest").write_text("step-00000004\n")
    with pytest.raises(ValueError, match="0 checkpoints and none is whole"):
        newest(run, lambda text: None)


def test_one_that_its_run_deletes_meanwhile_is_no_alarm(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`evaluate` beside a run that prunes."""
    verified = choose.verified

    def overtaken(directory: Path, ranks: Ranks) -> Checkpoint:
        if directory.name == "step-00000004":
            shutil.rmtree(directory)
            (run / "checkpoints/latest").write_text("step-00000002\n")
            raise ValueError("no such file")
        return verified(directory, ranks)

    monkeypatch.setattr(choose, "verified", overtaken)
    found = newest(run, pytest.fail)
    assert found is not None
    assert found.step == 2
