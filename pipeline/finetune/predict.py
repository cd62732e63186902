"""One question to a fine-tuned model, or one pair of sentences."""

from pathlib import Path
from typing import Any

from pipeline.config.schema import RunConfig
from pipeline.finetune.dev import found_answers, logits_of, prepared, said_of
from pipeline.finetune.model import load_finetuned
from pipeline.tasks.examples import Pair, Question, check_question

ID = "asked"


def predict_answer(run_dir: Path, question: str, context: str) -> dict[str, Any]:
    """{"answer", "null_odds", "n_best"} of a run of SQuAD; in 2.0 the answer is "" where there is none. ValueError for an empty
    question or context, a question that is too long, or a run of another task."""
    config, tokenizer, model, _ = load_finetuned(run_dir)
    _check_task(config, run_dir, ("squad1", "squad2"), "--first and --second")
    asked = Question(ID, question, context)
    check_question(asked, "the command line")
    part = prepared([asked], tokenizer, config)
    found = logits_of(model, part.data, config.batch.micro_sequences)
    assert found is not None, "nothing interrupts it here"
    assert part.windows is not None, "a question has windows"
    said = found_answers(part.windows, found[0], config)[ID]
    answer = said.text if config.task.name == "squad1" else said.at(0.0)
    return {"answer": answer, "null_odds": said.null_odds, "n_best": said.n_best}


def predict_label(run_dir: Path, first: str, second: str) -> dict[str, Any]:
    """{"label", and each label's probability} of a run of MNLI. ValueError for an empty sentence, or a run of another task."""
    config, tokenizer, model, _ = load_finetuned(run_dir)
    _check_task(config, run_dir, ("mnli",), "--question and --context")
    if not first.strip() or not second.strip():
        raise ValueError(f"--{'second' if first.strip() else 'first'} is empty: expected a sentence")
    part = prepared([Pair(ID, first, second, None)], tokenizer, config)
    found = logits_of(model, part.data, 1)
    assert found is not None, "nothing interrupts it here"
    said = said_of(part, found[0], 0.0, config)
    return {"label": said.files["predictions"][ID], **said.files["nbest"][ID]}


def _check_task(config: RunConfig, run_dir: Path, tasks: tuple[str, ...], instead: str) -> None:
    if config.task.name not in tasks:
        raise ValueError(f"{run_dir} is fine-tuned on {config.task.name}: its head is another one; give it {instead}")
