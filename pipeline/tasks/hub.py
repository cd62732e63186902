"""The tasks' data from the Hugging Face hub, where no local files are given: pinned, and no code of theirs is run."""

from collections.abc import Mapping
from typing import Any

from pipeline.tasks.examples import LABELS, Pair, Question, TaskName
from pipeline.tasks.mnli import pair_of
from pipeline.tasks.squad import question_of

PINNED: Mapping[TaskName, tuple[str, str | None, str]] = {
    "mnli": ("nyu-mll/glue", "mnli", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"),
    "squad1": ("rajpurkar/squad", None, "7b6d24c440a36b6815f21b70d25016731768db1f"),
    "squad2": ("rajpurkar/squad_v2", None, "3ffb306f725f7d2ce8394bc1873b24868140c412"),
}
SPLITS: Mapping[TaskName, Mapping[str, str]] = {
    "mnli": {"train": "train", "dev_matched": "validation_matched", "dev_mismatched": "validation_mismatched"},
    "squad1": {"train": "train", "dev": "validation"},
    "squad2": {"train": "train", "dev": "validation"},
}


def load_hub(task: TaskName) -> dict[str, Any]:
    """Every split by our name, rows as the hub has them. OSError in one line if the set cannot be had."""
    import datasets

    name, config, revision = PINNED[task]
    try:
        return {
            split: datasets.load_dataset(name, config, revision=revision, split=theirs)
            for split, theirs in SPLITS[task].items()
        }
    except Exception as error:  # whatever `datasets` and the network under it raise
        raise OSError(
            f"dataset {name}: {' '.join(str(error).split())} ({type(error).__name__}); give local files with --data, or load "
            "it once where the hub can be reached and set HF_HUB_OFFLINE=1 here"
        ) from error


def hub_questions(rows: Any, task: TaskName, where: str) -> list[Question]:
    """rajpurkar/squad's and squad_v2's rows: answers is {"text": […], "answer_start": […]}."""
    questions = []
    for row in rows:
        texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
        impossible = {"is_impossible": not answers} if task == "squad2" else {}
        questions.append(question_of({**row, "answers": answers, **impossible}, where, task))
    return questions


def hub_pairs(rows: Any, where: str) -> list[Pair]:
    """nyu-mll/glue's rows: premise, hypothesis, label (a number of LABELS, in their order), idx."""
    return [
        pair_of(
            str(row["idx"]),
            {"sentence1": row["premise"], "sentence2": row["hypothesis"], "gold_label": LABELS[row["label"]]},
            where,
        )
        for row in rows
    ]
