"""Fine-tuning as a user has it: real ranks, a killed run that goes on, results, predictions, the scorecard."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.checkpoint.layout import step_directories
from pipeline.config.load import from_dict
from pipeline.export.export import export
from pipeline.finetune.settings import finetune_config, recipe_for, with_length
from pipeline.run.trained import read_run_file
from tests.helpers.finetuning import PRETRAINING, words
from tests.helpers.ranks import WITHOUT_REPORT, Death, RankServer
from tests.helpers.same_run import metrics, shards


@pytest.fixture(scope="module")
def tuned(rank_server: RankServer, pretrained: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of MNLI and one of SQuAD 2.0, on one rank. To be read only."""
    out = tmp_path_factory.mktemp("tuned") / "out"
    for task, more in (("mnli", ["--seeds", "2"]), ("squad2", ())):
        done = rank_server.run(words("finetune", task, pretrained, data, out, *more), 1)
        assert done.codes == [0], done.stderr
    return out


def predictions(run: Path) -> list[Any]:
    return [json.loads((run / f"{name}-dev.json").read_text()) for name in ("predictions", "nbest", "null_odds")]


def test_killed_and_resumed_it_ends_as_if_it_had_not_been(
    rank_server: RankServer, pretrained: Path, data: Path, tmp_path: Path
) -> None:
    """Dropout, order, LAMB's moments: nothing of them is lost. And one rank trains what two train."""
    options = ("--set", "train.ds_config=zero2")
    undisturbed, killed = (
        words("finetune", "squad2", pretrained, data, tmp_path / name, *options) for name in ("undisturbed", "killed")
    )
    done = rank_server.run(undisturbed, 2)
    assert done.codes == [0, 0], done.stderr
    dead = rank_server.run(killed, 2, die=Death(rank="all", at="step", count=9))
    assert dead.codes != [0, 0]
    again = rank_server.run(killed, 2)
    assert again.codes == [0, 0], again.stderr
    # A save begins when the one before is done: at step 9 that of step 4 is there, and perhaps that of step 8.
    assert re.search("going on from step [48]", again.stdout), again.stdout
    whole, resumed = (tmp_path / name / "squad2" / "seed-0" for name in ("undisturbed", "killed"))
    assert metrics(resumed) == metrics(whole)
    assert shards(resumed) == shards(whole)
    assert predictions(resumed) == predictions(whole)


def test_one_rank_and_two_train_the_same(
    rank_server: RankServer, tuned: Path, pretrained: Path, data: Path, tmp_path: Path
) -> None:
    done = rank_server.run(words("finetune", "squad2", pretrained, data, tmp_path, "--set", "train.ds_config=zero3"), 2)
    assert done.codes == [0, 0], done.stderr
    one, two = (metrics(out / "squad2" / "seed-0")[0] for out in (tuned, tmp_path))
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-5)
    said = [predictions(out / "squad2" / "seed-0") for out in (tuned, tmp_path)]
    assert said[1][2] == pytest.approx(said[0][2], abs=1e-3)


def test_all_by_sgd_in_bf16(rank_server: RankServer, pretrained: Path, data: Path, tmp_path: Path) -> None:
    sgd = ("--recipe", "finetune/squad1-sgd", "--set", "train.ds_config=zero1-bf16")
    done = rank_server.run(words("finetune", "squad1", pretrained, data, tmp_path, *sgd), 1)
    assert done.codes == [0], done.stderr
    rows = metrics(tmp_path / "squad1" / "seed-0")[0]
    assert all(row["param_norm"] > 0 and row["clip_threshold"] > 0 for row in rows)
    assert not (tmp_path / "squad1" / "seed-0" / "null_odds-dev.json").exists()


def test_bert_by_adamw_and_from_scratch(rank_server: RankServer, corpus: Path, data: Path, tmp_path: Path) -> None:
    pretraining = ["pretrain", "--recipe", "tiny-bert", "--data", corpus, "--run", tmp_path / "bert", *PRETRAINING]
    assert rank_server.run([*pretraining, "--set", "optim.schedule.warmup_steps=1"], 1, skip=WITHOUT_REPORT).codes == [0]
    for more in ([], ["--from-scratch"]):
        done = rank_server.run(words("finetune", "mnli", tmp_path / "bert", data, tmp_path / "out", *more), 1)
        assert done.codes == [0], done.stderr
    tuned, scratch = (
        json.loads((tmp_path / "out" / name / "seed-0" / "results.json").read_text()) for name in ("mnli", "mnli-from-scratch")
    )
    assert tuned["recipe"] == scratch["recipe"] == "finetune/mnli-bert"
    assert tuned["config"]["optim"]["rule"] == "adamw"
    assert (tuned["source"]["tokens"], scratch["source"]["tokens"]) == (2 * 16 * 32, 0)
    losses = [metrics(tmp_path / "out" / name / "seed-0")[0][0]["loss"] for name in ("mnli", "mnli-from-scratch")]
    assert losses[0] != losses[1]


def test_an_export_is_fine_tuned_as_its_run_is(
    rank_server: RankServer, call: Callable[..., Any], tuned: Path, pretrained: Path, corpus: Path, data: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "exported", tmp_path / "out"
    export(pretrained, folder)
    done = rank_server.run(words("finetune", "squad2", folder, data, out, "--corpus", str(corpus)), 1)
    assert done.codes == [0], done.stderr
    assert metrics(out / "squad2" / "seed-0") == metrics(tuned / "squad2" / "seed-0")
    assert predictions(out / "squad2" / "seed-0") == predictions(tuned / "squad2" / "seed-0")
    assert "step 2, 1,024 tokens)" in call("scorecard", "--run", out)[1]
    refused = rank_server.run(words("finetune", "squad2", folder, data, tmp_path / "other"), 1)
    assert refused.codes == [2]
    assert "give a corpus of its tokenizer with --corpus" in refused.stderr


def test_results_say_what_was_trained_on_what(tuned: Path, pretrained: Path) -> None:
    results = json.loads((tuned / "mnli" / "seed-1" / "results.json").read_text())
    assert set(results["figures"]) == {"matched", "mismatched"}
    assert results["figures"]["matched"]["total"] == 9
    assert results["figures"]["matched"]["chance"] == pytest.approx(100 / 3)
    assert results["source"]["step"] == 2
    assert results["source"]["tokens"] == 2 * 16 * 32
    assert results["steps"] == 5  # 20 pairs, 2 epochs, 8 a step
    assert results["config"]["train"]["seed"] == 1
    assert set(results["data"]) == {"train.jsonl", "dev_matched.jsonl", "dev_mismatched.jsonl"}
    said = json.loads((tuned / "squad2" / "seed-0" / "predictions-dev.json").read_text())
    assert len(said) == 9


def test_what_is_scored_is_what_is_written(call: Callable[..., Any], tuned: Path, data: Path) -> None:
    """`score` on the files gives the figures of results.json."""
    seed = tuned / "squad2" / "seed-0"
    figures = json.loads((seed / "results.json").read_text())["figures"]["dev"]
    code, out, _ = call("score", "--task", "squad2", seed / "predictions-dev.json", data / "dev-v2.0.json", "--json")
    assert code == 0
    scored = json.loads(out)
    assert {key: figures[key] for key in scored} == pytest.approx(scored)


def test_a_seed_with_results_is_left_alone(rank_server: RankServer, tuned: Path, pretrained: Path, data: Path) -> None:
    before = {path: path.read_bytes() for path in (tuned / "squad2").rglob("*") if path.is_file() and path.name != ".lock"}
    done = rank_server.run(words("finetune", "squad2", pretrained, data, tuned), 1)
    assert done.codes == [0], done.stderr
    assert "has its results already" in done.stdout
    assert {path: path.read_bytes() for path in before} == before
    other = rank_server.run(words("finetune", "squad2", pretrained, data, tuned, "--set", "optim.lr=0.01"), 1)
    assert other.codes == [2]
    assert "optim.lr is 0.001 there, 0.01 here" in other.stderr


def test_predict(call: Callable[..., Any], tuned: Path) -> None:
    context = "The ﬁsh ate ½ a worm. " * 12
    asked = ("--question", "Who ate?", "--context", context)
    code, out, _ = call("predict", "--run", tuned / "squad2" / "seed-0", *asked, "--json")
    assert code == 0
    said = json.loads(out)
    assert all(entry["text"] in context for entry in said["n_best"])
    assert sum(entry["probability"] for entry in said["n_best"]) == pytest.approx(1)
    code, out, _ = call("predict", "--run", tuned / "mnli" / "seed-0", "--first", "It sat.", "--second", "It sat.", "--json")
    probabilities = json.loads(out)
    assert probabilities.pop("label") == max(probabilities, key=probabilities.__getitem__)


def test_the_scorecard(call: Callable[..., Any], tuned: Path) -> None:
    code, out, _ = call("scorecard", "--run", tuned)
    assert code == 0
    assert "not comparable" in out
    card = json.loads((tuned / "scorecard.json").read_text())
    values = [json.loads((tuned / "mnli" / f"seed-{n}" / "results.json").read_text())["figures"]["matched"] for n in (0, 1)]
    row = next(row for row in card["rows"] if row["figure"] == "matched accuracy")
    first, second = (value["accuracy"] for value in values)
    assert row["mean"] == pytest.approx((first + second) / 2)
    assert row["interval"] == pytest.approx(12.706 * abs(first - second) / 2)  # t(1)·s/√2, s = |a − b|/√2
    assert row["minus_paper"]["BERT-base, Adam"] == pytest.approx(row["mean"] - 84.4)
    page = (tuned / "scorecard.html").read_text()
    assert "1,024 tokens" in page
    assert "<script" not in page


def altered(tuned: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the results alone, one of them changed."""
    for path in tuned.rglob("results.json"):
        there = tmp_path / "out" / path.relative_to(tuned)
        there.parent.mkdir(parents=True)
        values = json.loads(path.read_text())
        if there.parent.name == "seed-1":
            change(values)
        there.write_text(json.dumps(values))
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda r: r["source"].update(distance_from_initial=1e-9), "are the initial ones"),
        (lambda r: r["source"].update(weights_sha256="x"), "from different pretrained weights"),
        (lambda r: r.update(data={}), "from different data"),
        (lambda r: r["config"]["optim"].update(lr=0.5), "by different settings"),
        (lambda r: r.pop("figures"), "no figures in it"),
    ],
)
def test_a_scorecard_is_refused(
    call: Callable[..., Any], tuned: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], line: str
) -> None:
    out = altered(tuned, tmp_path, change)
    code, _, error = call("scorecard", "--run", out)
    assert code == 2
    assert line in error
    assert not (out / "scorecard.json").exists()
    assert "no results" in call("scorecard", "--run", tmp_path / "none")[2]


def test_weights_that_were_trained_have_turned(tuned: Path, pretrained: Path) -> None:
    from pipeline.finetune.source import INITIAL, distance_from_initial
    from pipeline.init.normal import init_weights
    from pipeline.run.trained import load_run

    config, corpus, model, _ = load_run(pretrained)
    assert distance_from_initial(model, config, corpus) > 100 * INITIAL
    init_weights(model, config.model, config.train.seed)
    for parameter in model.parameters():
        parameter.data.mul_(3.0)  # a start may rescale
    assert distance_from_initial(model, config, corpus) < INITIAL / 10


def test_runs_that_cannot_be_used(call: Callable[..., Any], tuned: Path, pretrained: Path, data: Path, tmp_path: Path) -> None:
    seed = tuned / "squad2" / "seed-0"
    pair = ("--first", "a", "--second", "b")
    assert "fine-tuned on squad2: its head is another one" in call("predict", "--run", seed, *pair)[2]
    assert "a pretraining run, without a task's head" in call("predict", "--run", pretrained, *pair)[2]
    assert "fine-tuned on squad2: its head is another one" in call("evaluate", "--run", seed)[2]
    assert "no config.json" in call("finetune", "--task", "mnli", "--run", data, "--out", tmp_path / "out")[2]
    assert "give either" in call("predict", "--run", seed, "--first", "a")[2]
    assert "empty context" in call("predict", "--run", seed, "--question", "a", "--context", " ")[2]
    bare = Path(shutil.copytree(seed, tmp_path / "bare"))
    (bare / "tokenizer.model").write_bytes((bare / "tokenizer.model").read_bytes() + b"\x0a\x00")
    assert "tokenizer.model" in call("predict", "--run", bare, *pair)[2]
    shutil.rmtree(bare / "checkpoints")
    (bare / "checkpoints").mkdir()
    assert "has no checkpoint yet" in call("predict", "--run", bare, *pair)[2]
    assert not (tmp_path / "out").exists()


def test_a_run_is_as_long_as_its_epochs(pretrained: Path) -> None:
    saved = from_dict(read_run_file(pretrained)["config"], where="run")
    assert recipe_for("mnli", saved) == "finetune/mnli"
    config = finetune_config("mnli", "finetune/mnli", saved, ["data.seq_len=64"])
    assert (config.model.width, config.model.dropout, config.model.init) == (32, 0.1, "normal")
    long = with_length(config, 1000, seed=4)
    assert (long.train.steps, long.optim.schedule.warmup_steps, long.train.seed) == (94, 9, 4)  # 3 · 1000 / 32, rounded up
    assert step_directories(pretrained)
