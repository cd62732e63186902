"""A fine-tuned model on the dev set: what it says of each example, over all ranks, and the official figures of it.

Shapes: B rows, L tokens of a row, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sentencepiece
import torch
from torch import Tensor

from pipeline.config.schema import RunConfig
from pipeline.distributed.ranks import ALONE, Ranks
from pipeline.model.pretraining import on_device
from pipeline.model.task_model import TaskModel
from pipeline.tasks import metrics
from pipeline.tasks.examples import LABELS, Pair, Question
from pipeline.tasks.samples import TaskData, Windows, cut, pair_rows
from pipeline.tasks.spans import Answers, WindowAnswers, answers, by_question, predictions, window_answers


@dataclass(frozen=True)
class Part:
    """One dev set, prepared: pairs, or questions with their windows."""

    pairs: Sequence[Pair]
    windows: Windows | None
    data: TaskData


@dataclass(frozen=True)
class Said:
    """What a model said of a part. `files`: contents by name (predictions, nbest, null_odds); `figures`: the official ones."""

    loss: float
    figures: Mapping[str, float]
    files: Mapping[str, Mapping[str, Any]]


def prepared(
    examples: Sequence[Pair] | Sequence[Question], tokenizer: sentencepiece.SentencePieceProcessor, config: RunConfig
) -> Part:
    """Tokenised, and cut into windows. ValueError as `cut`."""
    pairs = [example for example in examples if isinstance(example, Pair)]
    questions = [example for example in examples if isinstance(example, Question)]
    windows = cut(questions, tokenizer, config.data.seq_len, config.task) if questions else None
    rows = windows.rows if windows else pair_rows(pairs, tokenizer, config.data.seq_len)
    return Part(pairs, windows, TaskData(rows, config.data.seq_len, 0))


@torch.no_grad()
def logits_of(
    model: TaskModel,
    data: TaskData,
    micro: int,
    ranks: Ranks = ALONE,
    interrupted: Callable[[], bool] = lambda: False,
) -> tuple[dict[int, Tensor], Tensor] | None:
    """({row: its logits} of this rank's share of the rows, their loss and count); None if `interrupted`, which is asked at
    every turn, equally often on every rank, said yes."""
    was_training, device = model.training, on_device(model)
    model.eval()
    found: dict[int, Tensor] = {}
    sums = torch.zeros(2, dtype=torch.float64)
    for first in range(0, data.n_samples, ranks.size * micro):  # as often on every rank: ZeRO 3 gathers weights in each
        if interrupted():
            model.train(was_training)
            return None
        start = first + ranks.rank * micro
        rows = list(range(start, min(start + micro, data.n_samples)))
        out = model(data.at(rows or [0]).to(device))
        if rows:
            found.update(zip(rows, out.logits.float().cpu(), strict=True))
            sums += torch.tensor([float(out.token_loss_N.double().sum()), out.token_loss_N.numel()], dtype=torch.float64)
    model.train(was_training)
    return found, sums


def said_of(part: Part, found: Mapping[int, Tensor], loss: float, config: RunConfig, ranks: Ranks = ALONE) -> Said:
    """From every rank's logits; the same on all ranks. ValueError if a logit is not finite."""
    if part.windows is None:
        mine = ranks.together(lambda: {str(row): _probabilities(part.pairs[row], logits) for row, logits in found.items()})
        everything = {int(row): values for one in ranks.gather(mine) for row, values in one.items()}
        return _of_pairs(part.pairs, [everything[row] for row in range(len(part.pairs))], loss)
    answered = found_answers(part.windows, found, config, ranks)
    return _of_questions(part.windows.questions, answered, loss, config)


def _probabilities(pair: Pair, logits_C: Tensor) -> list[float]:
    if not bool(logits_C.isfinite().all()):
        raise ValueError(f"the logits of pair {pair.id!r} are not finite (NaN or infinity): no answer follows")
    probabilities: list[float] = torch.softmax(logits_C.double(), 0).tolist()
    return probabilities


def found_answers(windows: Windows, found: Mapping[int, Tensor], config: RunConfig, ranks: Ranks = ALONE) -> dict[str, Answers]:
    """{question's id: what is said of it}."""
    task = config.task

    def mine() -> list[WindowAnswers]:
        return [
            window_answers(row, windows.windows[row], starts_L, ends_L, task.n_best, task.answer_tokens)
            for row, (starts_L, ends_L) in ((row, logits.double().numpy()) for row, logits in found.items())
        ]

    sent = [[one.window, one.null_score, one.candidates] for one in ranks.together(mine)]
    said = [
        WindowAnswers(window, null_score, tuple((score, first, last) for score, first, last in candidates))
        for one in ranks.gather(sent)
        for window, null_score, candidates in one
    ]
    grouped = by_question(said, windows.windows, len(windows.questions))
    return {
        question.id: answers(question, tokens, mine_of_it, task.n_best)
        for question, tokens, mine_of_it in zip(windows.questions, windows.contexts, grouped, strict=True)
    }


def _of_pairs(pairs: Sequence[Pair], probabilities: Sequence[list[float]], loss: float) -> Said:
    labels = {pair.id: max(range(len(LABELS)), key=p.__getitem__) for pair, p in zip(pairs, probabilities, strict=True)}
    chance = max(sum(pair.label == label for pair in pairs) for label in range(len(LABELS))) / len(pairs)
    return Said(
        loss,
        {**metrics.accuracy(pairs, labels), "chance": 100.0 * chance},
        {
            "predictions": {id_: LABELS[label] for id_, label in labels.items()},
            "nbest": {pair.id: dict(zip(LABELS, p, strict=True)) for pair, p in zip(pairs, probabilities, strict=True)},
        },
    )


def _of_questions(questions: Sequence[Question], answered: Mapping[str, Answers], loss: float, config: RunConfig) -> Said:
    files: dict[str, Mapping[str, Any]] = {"nbest": {id_: one.n_best for id_, one in answered.items()}}
    texts = {id_: one.text for id_, one in answered.items()}
    if config.task.name == "squad1":
        return Said(loss, {**metrics.squad1(questions, texts), "chance": 0.0}, {"predictions": texts, **files})
    odds = {id_: one.null_odds or 0.0 for id_, one in answered.items()}  # without a candidate the text is "" anyway
    figures = metrics.squad2(questions, texts, odds, na_prob_threshold=0.0)
    chance = 100.0 * figures.get("NoAns_total", 0) / figures["total"]
    files |= {"predictions": predictions(answered, 0.0), "null_odds": odds}
    return Said(loss, {**figures, "chance": chance}, files)
