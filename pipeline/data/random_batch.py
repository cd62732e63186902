"""Made-up batches, for what needs the form of a batch and no text: checks, measurements, benchmarks.

Shapes: B sequences, L tokens of a sequence, P predictions of a sequence.
"""

import torch

from pipeline.data.batch import Batch
from preprocessing.corpus.reader import FIRST_ORDINARY_ID

FILLED = 0.9  # of the prediction slots of a ragged batch


def random_batch(
    generator: torch.Generator,
    sequences: int,
    seq_len: int,
    predictions: int,
    vocab_size: int,
    *,
    nsp: bool,
    shortest: int | None = None,
    lowest_id: int = FIRST_ORDINARY_ID,
) -> Batch:
    """Uniform ids from [lowest_id, vocab_size), the second half of each sequence of type 1, random NSP labels if `nsp`.

    Without `shortest` every sequence is full, and each prediction's label is the token that stands there. With it
    sequences end anywhere from `shortest` tokens on and are padded; predictions lie in the first `shortest` tokens, a
    tenth of their slots is empty, labels are random. On the CPU; the same generator state gives the same batch.
    """
    ids_BL = torch.randint(lowest_id, vocab_size, (sequences, seq_len), generator=generator)
    types_BL = (torch.arange(seq_len) >= seq_len // 2).long().repeat(sequences, 1)
    mask_BL = None
    if shortest is not None:
        length_B1 = torch.randint(shortest, seq_len + 1, (sequences, 1), generator=generator)
        mask_BL = (torch.arange(seq_len) < length_B1).float()
    size = (sequences, predictions)
    positions_BP = torch.randint(0, shortest or seq_len, size, generator=generator)
    if shortest is None:
        labels_BP, weights_BP = ids_BL.gather(1, positions_BP), torch.ones(size)
    else:
        labels_BP = torch.randint(lowest_id, vocab_size, size, generator=generator)
        weights_BP = (torch.rand(size, generator=generator) < FILLED).float()
    nsp_labels_B = torch.randint(0, 2, (sequences,), generator=generator) if nsp else None
    return Batch(ids_BL, types_BL, positions_BP, labels_BP, weights_BP, mask_BL, nsp_labels_B)
