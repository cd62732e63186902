"""An exported run under real transformers: the same logits, the same ids, there and back again; and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.config.load import changed
from pipeline.model.build import build_model
from pipeline.run.bert_names import TOKEN_TYPES
from pipeline.run.exported import read_exported
from pipeline.run.started_from import weights_of_export
from tests.helpers.exports import LEARNED, LENGTH, SEED, WIRINGS, configuration, exported, states, trained
from tests.helpers.ranks import WITHOUT_REPORT, RankServer
from tests.helpers.running import SMALL, set_options

WORDS = "bert.embeddings.word_embeddings.weight"
PLAIN = [name for name in WIRINGS if name.startswith("plain")]


def inputs(vocab_size: int) -> dict[str, Tensor]:
    """Three sequences with a [MASK] each, the second padded, in two parts."""
    ids = torch.randint(5, vocab_size, (3, LENGTH), generator=torch.Generator().manual_seed(SEED))
    ids[:, 3], ids[1, 15:] = 4, 0
    types, mask = torch.zeros_like(ids), torch.ones_like(ids)
    types[:, 10:], mask[1, 15:] = 1, 0
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}


def same(ours: Tensor, theirs: Tensor, batch: dict[str, Tensor]) -> None:
    """Where there is no padding."""
    assert ours.abs().max() > 0.1
    torch.testing.assert_close(theirs[batch["attention_mask"] == 1], ours[batch["attention_mask"] == 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", WIRINGS)
@torch.no_grad()
def test_the_same_logits(transformers: ModuleType, corpus: Path, tmp_path: Path, name: str) -> None:
    """As MaskedLM and as AutoModel, loaded, saved by transformers, loaded again, and read back here."""
    recipe, values = WIRINGS[name]
    what = trained(configuration(recipe, values), corpus)
    folder, batch = exported(tmp_path / "first", what), inputs(what.record["vocab_size"])
    hidden = states(what.model, batch)
    logits = what.model.mlm_head(hidden, what.model.encoder.embedding.token.weight)
    code = {} if name in PLAIN else {"trust_remote_code": True}
    model, report = transformers.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True, **code)
    assert not any(report.values()), report
    assert type(model).__name__ == ("BertForMaskedLM" if name in PLAIN else "SibertForMaskedLM")
    same(logits, model.eval()(**batch).logits, batch)
    same(hidden, transformers.AutoModel.from_pretrained(folder, **code).eval()(**batch).last_hidden_state, batch)

    model.save_pretrained(tmp_path / "second")
    again = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "second", **code).eval()
    assert torch.equal(again(**batch).logits, model(**batch).logits)
    other = build_model(what.config, what.record["vocab_size"])
    read_exported(tmp_path / "second").fill(other)
    assert torch.equal(other.mlm_head(states(other, batch), other.encoder.embedding.token.weight), logits)


@pytest.mark.parametrize("model", [LEARNED, {"positions": "rotary", "token_types": False}], ids=["learned", "rotary"])
@torch.no_grad()
def test_admin_is_folded_into_a_plain_bert(
    transformers: ModuleType, corpus: Path, tmp_path: Path, model: dict[str, Any]
) -> None:
    """Which transformers, our own reader and a new run take as they take any other; the record says what was trained."""
    what = trained(configuration("tiny-bert", {**model, "init": "admin"}), corpus)
    for name, parameter in what.model.named_parameters():
        if name.endswith("omega"):
            parameter.uniform_(0.5, 2)
    folder, batch = exported(tmp_path / "hf", what), inputs(what.record["vocab_size"])
    hidden = states(what.model, batch)
    auto = transformers.AutoModelForMaskedLM
    theirs, report = auto.from_pretrained(folder, output_loading_info=True, trust_remote_code=True)
    assert not any(report.values()), report
    assert type(theirs).__name__ == ("BertForMaskedLM" if model is LEARNED else "SibertForMaskedLM")
    logits = what.model.mlm_head(hidden, what.model.encoder.embedding.token.weight)
    same(logits, theirs.eval()(**batch).logits, batch)
    found = read_exported(folder)
    assert (found.config.model.init, found.record["config"]["model"]["init"]) == ("normal", "admin")
    again = build_model(found.config, what.record["vocab_size"])
    found.fill(again)
    same(hidden, states(again, batch), batch)
    assert weights_of_export(found).shapes.keys() == dict(again.named_parameters()).keys()


@pytest.mark.parametrize("name", ["sibert-d, tied", "plain bert"])
@torch.no_grad()
def test_the_same_predictions_in_bf16(transformers: ModuleType, corpus: Path, tmp_path: Path, name: str) -> None:
    recipe, values = WIRINGS[name]
    what = trained(configuration(recipe, values), corpus)
    folder, batch = exported(tmp_path / "hf", what), inputs(what.record["vocab_size"])
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.bfloat16).eval()
    ours = what.model.bfloat16()
    logits = ours.mlm_head(states(ours, batch), ours.encoder.embedding.token.weight)
    at = batch["attention_mask"] == 1
    assert torch.equal(theirs(**batch).logits[at].argmax(-1), logits[at].argmax(-1))


@pytest.mark.parametrize("task", ["mnli", "squad2"])
@pytest.mark.parametrize(
    ("name", "head"), [("sibert-d, tied", "linear"), ("sibert-d, tied", "invariant"), ("plain bert", "linear")]
)
@torch.no_grad()
def test_a_fine_tuned_model(transformers: ModuleType, corpus: Path, tmp_path: Path, name: str, task: str, head: str) -> None:
    recipe, values = WIRINGS[name]
    config = configuration(recipe, values, **{"task.name": task, "task.head": head})
    what = trained(config, corpus)
    folder, batch = exported(tmp_path / "hf", what), inputs(what.record["vocab_size"])
    ours = what.model.head(states(what.model, batch), None)
    if task == "mnli":
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
        torch.testing.assert_close(model(**batch).logits, ours, rtol=1e-5, atol=1e-5)
        assert model.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    else:
        model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder, trust_remote_code=True).eval()
        out = model(**batch)
        same(ours.transpose(1, 2), torch.stack([out.start_logits, out.end_logits], -1), batch)
    assert type(model).__name__.startswith("Bert" if name == "plain bert" else "Sibert")


@pytest.mark.parametrize("auto", ["SequenceClassification", "QuestionAnswering", "MaskedLM"])
def test_it_can_be_trained_further(transformers: ModuleType, corpus: Path, tmp_path: Path, auto: str) -> None:
    """A loss with a gradient for every weight of the encoder, with dropout; none of it not a number."""
    what = trained(configuration(*WIRINGS["sibert-d, tied"]), corpus)
    folder, batch = exported(tmp_path / "hf", what), inputs(what.record["vocab_size"])
    model = getattr(transformers, f"AutoModelFor{auto}").from_pretrained(folder, trust_remote_code=True).train()
    labels = {
        "SequenceClassification": {"labels": torch.tensor([0, 1, 0])},
        "QuestionAnswering": {"start_positions": torch.tensor([1, 2, 99]), "end_positions": torch.tensor([3, 2, 99])},
        "MaskedLM": {"labels": batch["input_ids"].masked_fill(batch["input_ids"] == 0, -100)},
    }[auto]
    torch.manual_seed(SEED)
    losses = [model(**batch, **labels).loss for _ in range(2)]
    assert losses[0] != losses[1], "no dropout"
    losses[0].backward()
    gradients = [parameter.grad for parameter in model.encoder.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert sum(gradient.abs().sum() for gradient in gradients) > 0


def test_constant_rows_are_zeros_with_zero_gradients() -> None:
    from pipeline.export.modeling_sibert import layer_norm  # here: with it comes transformers, three seconds of each worker

    x = torch.tensor([[3.1, 3.1, 3.1], [1.0, 2.0, 4.0]], requires_grad=True)
    y = layer_norm(x)
    (y * torch.arange(6.0).view(2, 3)).sum().backward()
    assert x.grad is not None
    assert not y[0].any()
    assert not x.grad[0].any()
    assert x.grad[1].any()
    assert y[1].std(correction=0).item() == pytest.approx(1)


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(rank_server: RankServer, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pretrained for two steps. To be read only."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    words = ["pretrain", "--recipe", "tiny", "--data", corpus, "--run", folder, *SMALL]
    words += set_options(train__steps=2, train__log_every_steps=1, optim__decay_budget=0.2, data__objective="mlm+nsp")
    done = rank_server.run(words, 1, skip=WITHOUT_REPORT)
    assert done.codes == [0], done.stderr
    return folder


def test_from_a_run_and_back(
    transformers: ModuleType, call: Call, run: Path, corpus: Path, little_corpus: Path, tmp_path: Path
) -> None:
    """`evaluate` gives the run's own figures of the folder, which names no place of this machine; the card has the figures."""
    folder = tmp_path / "small.hf"
    assert call("export", "--run", run, "--out", folder)[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "config.json", "model.safetensors", "modeling_sibert.py", "tokenizer.json", "tokenizer_config.json")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["small.hf"]
    few = ("--sequences", "8", "--json")
    mine, theirs = (json.loads(call("evaluate", "--run", d, "--data", corpus, *few)[1]) for d in (run, folder))
    assert mine == theirs
    summary = json.loads((run / "summary.json").read_text())
    card = (folder / "README.md").read_text()
    assert f"{summary['heldout_loss']:.4g} nats" in card
    assert card.count('from_pretrained("small.hf", trust_remote_code=True)') == 2, "transformers asks, for a tokenizer too"
    for name in ("README.md", "config.json", "tokenizer_config.json"):
        text = (folder / name).read_text()
        assert str(corpus.parent) not in text, name
        assert str(run.parent) not in text, name

    fill = transformers.pipeline("fill-mask", model=str(folder), tokenizer=str(folder), trust_remote_code=True)
    found = fill(["The capital of France is [MASK].", "A longer [MASK] of words, padded beside it or not."], top_k=5)
    assert [len(answers) for answers in found] == [5, 5]
    assert all(0 < answer["score"] < 1 and answer["token"] >= 5 for answers in found for answer in answers)

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "exists" in call("export", "--run", run, "--out", folder)[2]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "is an exported model, which" in call("predict", "--run", folder, "--first", "a", "--second", "b")[2]
    assert "is an exported model already" in call("export", "--run", folder, "--out", tmp_path / "b")[2]
    assert "--data" in call("evaluate", "--run", folder)[2]
    assert "another tokenizer" in call("evaluate", "--run", folder, "--data", little_corpus)[2]
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({key: value for key, value in values.items() if key != "trained_by"}))
    assert "no whole `trained_by`" in call("evaluate", "--run", folder, "--data", corpus)[2]
    (folder / "config.json").write_bytes(before["config.json"])
    (folder / "model.safetensors").write_bytes(before["model.safetensors"][:-1])
    assert "not a whole safetensors file" in call("evaluate", "--run", folder, "--data", corpus)[2]
    assert [path.name for path in tmp_path.iterdir()] == ["small.hf"]


def test_refused_with_nothing_left(call: Call, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without a checkpoint, no run, no place; and a disk that is full when the last file is written."""
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "is not a run directory" in call("export", "--run", empty, "--out", tmp_path / "hf")[2]
    (empty / "config.json").write_bytes((run / "config.json").read_bytes())
    assert "has no checkpoint yet" in call("export", "--run", empty, "--out", tmp_path / "hf")[2]
    assert "no directory" in call("export", "--run", run, "--out", tmp_path / "none" / "hf")[2]

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("pipeline.export.export.write_whole", full)
    assert "No space left" in call("export", "--run", run, "--out", tmp_path / "hf")[2]
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_another_vocabulary_or_head_is_named(transformers: ModuleType, corpus: Path, tmp_path: Path) -> None:
    what = trained(configuration(*WIRINGS["the paper's"]), corpus)
    folder = exported(tmp_path / "hf", what)
    assert set(load_file(folder / "model.safetensors")) == {name for name, _ in what.model.named_parameters()}
    with pytest.raises(ValueError, match=r"encoder.embedding.token.weight is \[\d+, 16\], expected \[99, 16\]"):
        read_exported(folder).fill(build_model(what.config, 99))
    nsp = changed(what.config, {"data.objective": "mlm+nsp"})
    with pytest.raises(ValueError, match=r"nsp_head.* is missing"):
        read_exported(folder).fill(build_model(nsp, what.record["vocab_size"]))


@pytest.mark.parametrize("change", [lambda w: w * float("nan"), lambda w: w.to(torch.int8)], ids=["NaN", "int8"])
def test_weights_that_are_none_are_named(corpus: Path, tmp_path: Path, change: Callable[[Tensor], Tensor]) -> None:
    what = trained(configuration(*WIRINGS["plain bert without types"]), corpus)
    path = exported(tmp_path / "hf", what) / "model.safetensors"
    tensors = load_file(path)
    del tensors[TOKEN_TYPES]  # which this model has not
    save_file({**tensors, WORDS: change(tensors[WORDS])}, path)
    with pytest.raises(ValueError, match=rf"{WORDS} holds torch\.\w+ that are no weights"):
        read_exported(tmp_path / "hf").fill(what.model)


@pytest.mark.parametrize("record", [{"step": "x"}, {"vocab_size": None}, {"config": []}])
def test_a_record_of_other_kinds_is_none(corpus: Path, tmp_path: Path, record: dict[str, Any]) -> None:
    folder = exported(tmp_path / "hf", trained(configuration(*WIRINGS["the paper's"]), corpus))
    values = json.loads((folder / "config.json").read_text())
    values["trained_by"] |= record
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="no whole `trained_by`"):
        read_exported(folder)
