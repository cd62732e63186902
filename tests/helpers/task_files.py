"""A few questions and sentence pairs in the tasks' official files: enough to train on, not to learn from."""

import json
import random
from pathlib import Path
from typing import Any

SEED = 20261128
NAMES = ("Ada", "Bob", "Cleo", "Dan", "Eve", "Finn")


def squad(folder: Path, version: int) -> None:
    """Contexts longer than a window, answers anywhere in them; in 2.0 a third of the questions has none."""
    draw = random.Random(SEED)
    for split, paragraphs in (("train", 6), ("dev", 3)):
        found = []
        for number in range(paragraphs):
            context = " ".join(f"{draw.choice(NAMES)} has {draw.randint(2, 99)} ½ cups." for _ in range(9))
            qas: list[dict[str, Any]] = []
            for name in NAMES[:3]:
                start = context.find(f"{name} has ")
                text = context[start:].split(" ")[2] if start >= 0 else ""
                qas.append({"id": f"{split}{number}{name}", "question": f"What has {name}?", "answers": []})
                if text:
                    qas[-1]["answers"] = [{"text": text, "answer_start": start + len(f"{name} has ")}]
                if version == 2:
                    qas[-1]["is_impossible"] = not text
            found.append({"context": context, "qas": [qa for qa in qas if qa["answers"] or version == 2]})
        values = {"version": f"v{version}.x", "data": [{"title": "t", "paragraphs": found}]}
        (folder / f"{split}-v{version}.0.json").write_text(json.dumps(values))


def write_tasks(folder: Path) -> Path:
    """MNLI, SQuAD 1.1 and 2.0, train and dev, in a folder that is there."""
    squad(folder, 1)
    squad(folder, 2)
    for split, count in (("train", 20), ("dev_matched", 9), ("dev_mismatched", 5)):
        rows = [
            {"gold_label": label, "sentence1": f"{NAMES[i % 6]} has {i} cups.", "sentence2": f"It is {label}."}
            for i in range(count)
            for label in ("entailment", "neutral", "contradiction")[i % 3 : i % 3 + 1]
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
