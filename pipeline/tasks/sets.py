"""A task's training and dev examples, from local files or from the hub, and what they are identified by."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.tasks.examples import Pair, Question, TaskName, check_ids
from pipeline.tasks.files import files_of
from pipeline.tasks.hub import PINNED, hub_pairs, hub_questions, load_hub
from pipeline.tasks.mnli import read_mnli
from pipeline.tasks.squad import read_squad
from preprocessing.base.files import file_sha256

Examples = list[Pair] | list[Question]


@dataclass(frozen=True)
class TaskSet:
    """`dev`: the examples of each part ("dev"; MNLI's "matched", "mismatched"). `sources`: what they were read from, by name: a
    sha256, or a hub revision."""

    train: Examples
    dev: Mapping[str, Examples]
    sources: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Of `sources`: two sets with the same one are the same."""
        return hashlib.sha256("\n".join(f"{name} {value}" for name, value in sorted(self.sources.items())).encode()).hexdigest()


def read_examples(path: Path, task: TaskName) -> Examples:
    """Of one file in the task's official format; ValueError or OSError otherwise."""
    return read_mnli(path) if task == "mnli" else read_squad(path, task)


def load_set(task: TaskName, folder: Path | None) -> TaskSet:
    """From a folder with the official files (`files.files_of`), all training files of it together; None: from the hub."""
    if folder is None:
        return _from_hub(task)
    train_files, dev_files = (files_of(task, folder, split) for split in ("train", "dev"))
    sources = {path.name: file_sha256(path) for path in (*train_files, *dev_files)}
    train, dev = _joined(train_files, task), {}
    for part in ("matched", "mismatched") if task == "mnli" else ("dev",):
        files = [path for path in dev_files if task != "mnli" or ("mismatched" in path.name) == (part == "mismatched")]
        if files:
            dev[part] = _joined(files, task)
    return TaskSet(train, dev, sources)


def _joined(files: Sequence[Path], task: TaskName) -> Examples:
    if task != "mnli":
        questions = [question for path in files for question in read_squad(path, task)]
        check_ids((question.id for question in questions), " + ".join(map(str, files)))
        return questions
    if len(files) == 1:
        return read_mnli(files[0])
    return [replace(pair, id=f"{path.name}:{pair.id}") for path in files for pair in read_mnli(path)]


def _from_hub(task: TaskName) -> TaskSet:
    name, config, revision = PINNED[task]
    splits = load_hub(task)
    read: dict[str, Examples] = {
        split: hub_pairs(rows, name) if task == "mnli" else hub_questions(rows, task, name) for split, rows in splits.items()
    }
    train = read.pop("train")
    return TaskSet(train, {split.removeprefix("dev_"): rows for split, rows in read.items()}, {f"{name} {config}": revision})
