"""What people do with an exported folder: the snippets of docs/export.md as they stand there, padding, bf16, the library's own
Trainer, and the major version before."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from pipeline.config.load import changed
from pipeline.export.export import Trained
from pipeline.finetune.dev import found_answers, logits_of, prepared
from pipeline.tasks.examples import Question
from tests.helpers.exports import WIRINGS, configuration, exported, states, trained
from tests.helpers.running import ROOT

LENGTH = 64
LONGEST = 20  # tokens of an answer
CONTEXTS = (
    "The ﬁsh of İstanbul swam at noon, and Ada saw it.",
    "Bob 😀 has co\u00adoperated with 中文 readers — twice, since 1999!",
    "Two  spaces,\ttabs and Straße; then nothing.",
)
LONG = " ".join(f"Number {i} follows number {i - 1}." for i in range(1, 40))
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), flags=re.DOTALL)
FORMER = (
    *("transformers==4.57.6", "tokenizers==0.22.2", "huggingface_hub==0.36.2"),
    *("requests", "urllib3", "charset_normalizer", "idna", "certifi"),  # which huggingface_hub 1 does without
)


@pytest.fixture(scope="module")
def asked(corpus: Path) -> Trained:
    """Fine-tuned on SQuAD 1.1, as it were, with answers of up to LONGEST tokens."""
    task = {"task.name": "squad1", "task.answer_tokens": LONGEST, "task.n_best": 1000}
    config = configuration(*WIRINGS["sibert-d, tied, learned, no norm"], **task)
    return trained(changed(config, {"model.max_seq_len": LENGTH, "data.seq_len": LENGTH}), corpus)


@pytest.fixture(scope="module")
def folders(asked: Trained, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """small.hf and squad.hf, as the snippets call them. To be read only."""
    place = tmp_path_factory.mktemp("exported")
    exported(place / "squad.hf", asked)
    config = configuration(*WIRINGS["sibert-d, tied"])
    exported(place / "small.hf", trained(changed(config, {"model.max_seq_len": LENGTH, "data.seq_len": LENGTH}), corpus))
    return place


@pytest.fixture(scope="module")
def snippets(transformers: ModuleType, folders: Path) -> dict[str, Any]:
    """The names that the snippets leave behind, run one after another beside the folders."""
    assert len(SNIPPETS) >= 3
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folders)
        patch.setattr("builtins.input", lambda prompt: pytest.fail(f"the user is asked: {prompt}"))
        for snippet in SNIPPETS:
            exec(compile(snippet, "docs/export.md", "exec"), names)
    return names


def test_the_answer_is_ours(snippets: dict[str, Any], asked: Trained) -> None:
    """The text that `predict` finds; its characters are of the original, whatever is folded, left out or not of the BMP."""
    questions = [Question(f"{i} {j}", f"Who {j}?", text) for i, text in enumerate(CONTEXTS) for j in ("swam", "read", "is it")]
    part = prepared(questions, asked.tokenizer, asked.config)
    found = logits_of(asked.model, part.data, 4)  # type: ignore[arg-type]  # a TaskModel
    assert found is not None
    assert part.windows is not None
    assert len(part.windows.windows) == len(questions), "a context of several windows"
    ours = found_answers(part.windows, found[0], asked.config)
    for question in questions:
        said = snippets["answer"](question.question, question.context, longest=LONGEST)
        best = ours[question.id].n_best
        score = next(entry["score"] for entry in best if entry["text"])
        assert said["answer"] == ours[question.id].text
        assert said["answer"] == question.context[said["start"] : said["end"]]
        assert said["score"] == pytest.approx(score, abs=1e-4)
        assert said["none"] == pytest.approx(next(entry["score"] for entry in best if not entry["text"]), abs=1e-4)
    assert len({one.text for one in ours.values()}) > len(CONTEXTS)


def test_an_answer_of_a_long_context(snippets: dict[str, Any]) -> None:
    """In windows: none has a better one, and the text is where it is said to be."""
    scores = []
    for length in (100, 300, len(LONG)):
        said = snippets["answer"]("Which number?", LONG[:length], longest=LONGEST)
        assert LONG[said["start"] : said["end"]] == said["answer"] != ""
        scores.append(said["score"])
    tokens = snippets["tokenizer"]("Which number?", LONG, truncation="only_second", return_overflowing_tokens=True, stride=32)
    assert len(tokens["input_ids"]) > 3
    assert snippets["answer"]("Which number?", LONG, longest=1)["score"] <= scores[-1]


@torch.no_grad()
def test_padding_changes_nothing(snippets: dict[str, Any], transformers: ModuleType) -> None:
    """The states, and the mean of them, of each text of a batch are those of the text alone."""
    tokenizer, model = snippets["tokenizer"], snippets["encoder"]
    batch = tokenizer(list(CONTEXTS), padding=True, return_tensors="pt")
    lengths = batch["attention_mask"].sum(1).tolist()
    assert min(lengths) < max(lengths)
    hidden, means = model(**batch).last_hidden_state, snippets["embed"](list(CONTEXTS))
    for i, text in enumerate(CONTEXTS):
        alone = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert len(alone) == lengths[i]
        torch.testing.assert_close(hidden[i, : lengths[i]], alone, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(means[i], alone.mean(0), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_same_places_in_bf16(transformers: ModuleType, asked: Trained, folders: Path) -> None:
    """Of starts and ends, the highest, by our model and by transformers', of a batch with padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders / "squad.hf", trust_remote_code=True)
    auto = transformers.AutoModelForQuestionAnswering
    theirs = auto.from_pretrained(folders / "squad.hf", trust_remote_code=True, dtype=torch.bfloat16).eval()
    batch = tokenizer(["Who?"] * len(CONTEXTS), list(CONTEXTS), padding=True, return_tensors="pt")
    ours = copy.deepcopy(asked.model).bfloat16()
    logits = ours.head(states(ours, batch), None).masked_fill(batch["attention_mask"][:, None] == 0, -torch.inf)
    out = theirs(**batch)
    found = torch.stack([out.start_logits, out.end_logits], 1).masked_fill(batch["attention_mask"][:, None] == 0, -torch.inf)
    assert torch.equal(found.argmax(-1), logits.argmax(-1))


@torch.no_grad()
def test_what_is_not_read_is_refused(snippets: dict[str, Any]) -> None:
    """Positions of the caller's own are not passed over in silence."""
    batch = snippets["tokenizer"]("Ada saw it.", return_tensors="pt")
    with pytest.raises(ValueError, match="position_ids: not read"):
        snippets["model"](**batch, position_ids=batch["input_ids"])


@pytest.mark.parametrize("rows_at_once", [1, 4])
def test_accumulated_gradients_are_those_of_the_batch(
    transformers: ModuleType, folders: Path, tmp_path: Path, rows_at_once: int
) -> None:
    """A step of plain SGD moves the weights by its rate times the gradient of the four rows' mean loss."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders / "small.hf", trust_remote_code=True)
    auto = transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(folders / "small.hf", trust_remote_code=True, hidden_dropout_prob=0.0)
    rows = [{**tokenizer(text), "labels": i % 2} for i, text in enumerate(("One.", "Two cats.", "Three.", "Four and more."))]
    batch = tokenizer.pad(rows, return_tensors="pt")
    (wanted,) = torch.autograd.grad(model(**batch).loss, model.head.output.weight)
    before = model.head.output.weight.detach().clone()
    settings = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=rows_at_once,
        gradient_accumulation_steps=len(rows) // rows_at_once,
        optim="sgd",
        learning_rate=1.0,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    transformers.Trainer(model, settings, train_dataset=rows, processing_class=tokenizer).train()
    torch.testing.assert_close(before - model.head.output.weight.detach(), wanted, rtol=1e-3, atol=1e-5)


def test_the_librarys_trainer(transformers: ModuleType, folders: Path, tmp_path: Path) -> None:
    """One step of it changes the weights; what it saves is what it has, to the bit."""
    auto, tokenizer = (
        transformers.AutoModelForQuestionAnswering,
        transformers.AutoTokenizer.from_pretrained(folders / "squad.hf", trust_remote_code=True),
    )
    model = auto.from_pretrained(folders / "squad.hf", trust_remote_code=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = [{**tokenizer("Who?", text), "start_positions": 5, "end_positions": 6} for text in CONTEXTS]
    settings = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=1,
        per_device_train_batch_size=len(rows),
        learning_rate=1e-2,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = transformers.Trainer(model, settings, train_dataset=rows, processing_class=tokenizer)
    assert 0 < trainer.train().training_loss < float("inf")
    after = model.state_dict()
    assert all(after[name].isfinite().all() for name in after)
    assert all(not torch.equal(after[name], before[name]) for name in ("head.output.weight", "encoder.embedding.token.weight"))
    trainer.save_model(tmp_path / "saved")
    again = auto.from_pretrained(tmp_path / "saved", trust_remote_code=True).state_dict()
    assert again.keys() == after.keys()
    assert all(torch.equal(again[name], after[name]) for name in after)


IN_THE_FORMER = """
import json, sys
import torch, transformers
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForQuestionAnswering, AutoTokenizer, pipeline

transformers.logging.set_verbosity_error()
texts, question, longest = json.load(sys.stdin)
code = {"trust_remote_code": True}
tokenizer = AutoTokenizer.from_pretrained("squad.hf", **code)
batch = tokenizer(texts, padding=True, return_tensors="pt")
with torch.no_grad():
    states = AutoModel.from_pretrained("small.hf", **code).eval()(**batch).last_hidden_state
    logits = AutoModelForMaskedLM.from_pretrained("small.hf", **code).eval()(**batch).logits
reader = AutoModelForQuestionAnswering.from_pretrained("squad.hf", **code)
ask = pipeline("question-answering", model=reader, tokenizer=tokenizer)
answers = [
    ask(question=question, context=text, align_to_words=False, max_answer_len=longest, max_question_len=30) for text in texts
]
fill = pipeline("fill-mask", model=AutoModelForMaskedLM.from_pretrained("small.hf", **code), tokenizer=tokenizer)
tokens = [entry["token"] for entry in fill("The capital of France is [MASK].")]
found = {"version": transformers.__version__, "ids": batch["input_ids"], "states": states, "logits": logits}
torch.save({**found, "answers": answers, "tokens": tokens}, sys.argv[1])
"""


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the major version before, on top of this one's packages."""
    place = tmp_path_factory.mktemp("former") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    packages = next(place.glob("lib/python*/site-packages"))
    (packages / "present.pth").write_text(str(Path(torch.__file__).parent.parent) + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", place / "bin" / "python", "install"]
    done = subprocess.run([*pip, "--quiet", "--no-deps", *FORMER], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package index has {', '.join(FORMER)}: {done.stderr.strip().splitlines()[-1]}")
    return place / "bin" / "python"


@pytest.mark.long
@torch.no_grad()
def test_the_major_version_before(former: Path, snippets: dict[str, Any], folders: Path, tmp_path: Path) -> None:
    """The same ids, states and logits; its pipeline("question-answering") finds what the snippet does, to the character."""
    auto, tokenizer = snippets["AutoModelForMaskedLM"], snippets["tokenizer"]
    sent = json.dumps([CONTEXTS, "Who swam?", LONGEST])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "code"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [former, "-c", IN_THE_FORMER, tmp_path / "found.pt"],
        cwd=folders,
        env=environment,
        input=sent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "found.pt")
    assert found["version"].startswith("4.")
    batch = tokenizer(list(CONTEXTS), padding=True, return_tensors="pt")
    assert torch.equal(found["ids"], batch["input_ids"])
    model = auto.from_pretrained(folders / "small.hf", trust_remote_code=True).eval()
    torch.testing.assert_close(found["states"], snippets["encoder"](**batch).last_hidden_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["logits"], model(**batch).logits, rtol=1e-5, atol=1e-5)
    for text, theirs in zip(CONTEXTS, found["answers"], strict=True):
        ours = snippets["answer"]("Who swam?", text, longest=LONGEST)
        assert {key: theirs[key] for key in ("answer", "start", "end")} == {
            key: ours[key] for key in ("answer", "start", "end")
        }
    assert found["tokens"] == [entry["token"] for entry in snippets["filled"]]
