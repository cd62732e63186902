"""A task's examples as batches: tokenised once, then a batch is a function of its counters, as in pretraining.

Shapes: B samples, L tokens of a row, P predictions of a row (1 class, or the 2 places of an answer).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import sentencepiece
import torch
from numpy.typing import NDArray

from pipeline.config.schema import RunConfig, TaskConfig
from pipeline.data.batch import Batch, Ints
from pipeline.data.dropout_keys import dropout_keys
from pipeline.data.order import permute
from pipeline.data.sentence_pairs import truncated_lengths
from pipeline.tasks.examples import Pair, Question
from pipeline.tasks.offsets import Tokens, tokenize
from pipeline.tasks.windows import SPECIALS, Window, all_windows, answer_tokens, fill_row, label
from preprocessing.corpus.reader import PAD_ID


class Row(NamedTuple):
    """One sample: what stands in its two parts, and what is predicted."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    labels: tuple[int, ...]


class TaskData:
    """Rows as batches. ValueError if there are none."""

    def __init__(self, rows: Sequence[Row], seq_len: int, seed: int) -> None:
        if not rows:
            raise ValueError("no examples: expected at least one")
        self.rows, self.seq_len, self.seed = rows, seq_len, seed
        self.n_samples = len(rows)

    def batch(self, consumed_B: Ints) -> Batch:
        """The samples with these global counters (`rank_indices`), each epoch in another order, with dropout keys."""
        epoch_B, place_B = np.divmod(consumed_B, self.n_samples)
        sample_B = [permute(int(k), self.n_samples, self.seed, int(e)) for e, k in zip(epoch_B, place_B, strict=True)]
        return self.at(sample_B, dropout_keys(self.seed, consumed_B))

    def at(self, samples: Sequence[int], keys_B: Ints | None = None) -> Batch:
        """The samples with these numbers, in the order of the rows."""
        tokens_BL = np.full((len(samples), self.seq_len), PAD_ID, dtype=np.int64)
        types_BL, mask_BL = np.zeros_like(tokens_BL), np.zeros(tokens_BL.shape, dtype=np.float32)
        for b, sample in enumerate(samples):
            row = self.rows[sample]
            mask_BL[b, : fill_row(tokens_BL[b], types_BL[b], (row.first, row.second))] = 1
        labels_BP = np.array([self.rows[sample].labels for sample in samples], dtype=np.int64)
        return Batch(
            input_ids=torch.from_numpy(tokens_BL),
            token_type_ids=torch.from_numpy(types_BL),
            positions=torch.zeros(labels_BP.shape, dtype=torch.int64),
            labels=torch.from_numpy(labels_BP),
            weights=torch.ones(labels_BP.shape),
            attention_mask=torch.from_numpy(mask_BL),
            dropout_keys=None if keys_B is None else torch.from_numpy(keys_B),
        )


class Windows(NamedTuple):
    """The questions of SQuAD, tokenised and cut: rows[i] is of windows[i]; contexts[q] are the tokens of question q's."""

    questions: Sequence[Question]
    contexts: Sequence[Tokens]
    windows: Sequence[Window]
    rows: Sequence[Row]


def pair_rows(pairs: Sequence[Pair], tokenizer: sentencepiece.SentencePieceProcessor, seq_len: int) -> list[Row]:
    """A row a pair; too long a pair loses tokens from the end of the longer sentence, one by one. An unlabelled one gets 0."""
    rows = []
    for pair in pairs:
        first, second = tokenize(tokenizer, pair.first).ids_N, tokenize(tokenizer, pair.second).ids_N
        length_a, length_b = truncated_lengths(len(first), len(second), seq_len - SPECIALS)
        rows.append(Row(first[:length_a], second[:length_b], (pair.label or 0,)))
    return rows


def cut(
    questions: Sequence[Question], tokenizer: sentencepiece.SentencePieceProcessor, seq_len: int, task: TaskConfig
) -> Windows:
    """Tokenise questions and contexts (each context once) and cut them into windows, labelled by the first gold answer.
    ValueError for a question of more than `task.question_tokens` tokens, or a context without any."""
    known: dict[str, Tokens] = {}
    asked = []
    for question in questions:
        ids = tokenize(tokenizer, question.question).ids_N
        if len(ids) > task.question_tokens:
            raise ValueError(
                f"question {question.id!r} has {len(ids)} tokens, more than task.question_tokens = {task.question_tokens}: "
                "raise that, or shorten the question"
            )
        if question.context not in known:
            known[question.context] = tokenize(tokenizer, question.context)
        if not len(known[question.context].ids_N):
            raise ValueError(f"question {question.id!r}: its context has no token: nothing of it can be shown")
        asked.append(ids)
    contexts = [known[question.context] for question in questions]
    found = list(all_windows(asked, contexts, seq_len, task.stride))
    spans = [
        answer_tokens(question.answers[0], tokens) if question.answers else None
        for question, tokens in zip(questions, contexts, strict=True)
    ]
    rows = [Row(asked[w.question], contexts[w.question].ids_N[w.first : w.stop], label(w, spans[w.question])) for w in found]
    return Windows(questions, contexts, found, rows)


def training_rows(
    examples: Sequence[Pair] | Sequence[Question], tokenizer: sentencepiece.SentencePieceProcessor, config: RunConfig
) -> Sequence[Row]:
    """Of a task's training set."""
    pairs = [example for example in examples if isinstance(example, Pair)]
    questions = [example for example in examples if isinstance(example, Question)]
    seq_len = config.data.seq_len
    return pair_rows(pairs, tokenizer, seq_len) if pairs else cut(questions, tokenizer, seq_len, config.task).rows
