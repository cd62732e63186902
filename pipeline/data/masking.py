"""Which tokens a sample hides: counter-based random numbers, and BERT's masking on top of them.

Every sample owns its streams of random numbers, named by (seed, epoch, sample, purpose) and by nothing else, so
batches, ranks, workers and restarts cannot change what is drawn. The stream is numpy's Philox4x64-10 with

    key     = (seed, epoch)                      two 64-bit words
    counter = (0, 0, purpose, sample)            four 64-bit words, lowest first

numpy counts up in the lowest word and carries into the next, so a stream would have to draw 2**130 words before it
met its neighbour: streams never overlap. `sample` is the sample's place in the corpus, not in the epoch's order.

Shapes: B samples, L tokens of a sequence, P predictions of a sequence, U uniform numbers of a sample.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

MASKING = 0  # purposes: what a stream is drawn for
SENTENCE_PAIRS = 1

P_MASK = 0.8  # of the predicted positions show [MASK] (Devlin et al. 2019, section 3.1)
P_RANDOM = 0.1  # show a random token; the rest show the token itself


def sample_uniforms(
    seed: int, epoch_B: NDArray[np.integer], sample_B: NDArray[np.integer], purpose: int, n_uniforms: int
) -> NDArray[np.float64]:
    """The first `n_uniforms` numbers in [0, 1) of each sample's stream, as uniforms_BU.

    Row b equals `Generator(Philox(key=[seed, epoch_B[b]], counter=[0, 0, purpose, sample_B[b]])).random(n_uniforms)`;
    one Philox is reseated for each row, because constructing one costs ten times as much as setting its state.
    ValueError: a negative number, or a seed beyond 64 bits.
    """
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed: got {seed}, expected an integer in [0, 2**64); choose a non-negative one")
    if len(sample_B) and min(int(np.min(epoch_B)), int(np.min(sample_B)), purpose) < 0:
        raise ValueError(f"epoch, sample, purpose: got {epoch_B}, {sample_B}, {purpose}, expected none below 0")
    philox = np.random.Philox(0)  # every bit of its state is replaced below
    generator = np.random.Generator(philox)
    key, counter = [seed, 0], [0, 0, purpose, 0]
    fresh: dict[str, Any] = {**philox.state}
    # Lists: numpy reads the words one by one, and takes them out of a list in half the time.
    state: Any = fresh | {"state": {"key": key, "counter": counter}, "buffer": fresh["buffer"].tolist()}
    uniforms_BU = np.empty((len(sample_B), n_uniforms))
    for row_U, epoch, sample in zip(uniforms_BU, epoch_B.tolist(), sample_B.tolist(), strict=True):
        key[1], counter[3] = epoch, sample
        philox.state = state  # copies key and counter, empties the buffer
        generator.random(out=row_U)
    return uniforms_BU


def predictions_per_sequence(seq_len: int, mask_fraction: float = 0.15) -> int:
    """P = round(mask_fraction * (seq_len - 2)), at least 1: [CLS] and the last [SEP] are never predicted.

    ValueError: no ordinary position in seq_len, or a fraction outside (0, 1].
    """
    if seq_len < 3:
        raise ValueError(f"seq_len: got {seq_len}, expected at least 3: [CLS], one token, [SEP]")
    if not 0 < mask_fraction <= 1:
        raise ValueError(f"mask_fraction: got {mask_fraction}, expected a fraction in (0, 1]; BERT's is 0.15")
    return max(1, round(mask_fraction * (seq_len - 2)))


def uniforms_per_sequence(seq_len: int, n_predictions: int) -> int:
    """U: how many uniform numbers `mask_tokens` takes for a sequence."""
    return seq_len + 2 * n_predictions


def mask_tokens(
    tokens_BL: NDArray[np.integer],
    uniforms_BU: NDArray[np.float64],
    n_predictions: int,
    vocab_size: int,
    mask_id: int,
    first_ordinary_id: int,
    mask_fraction: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """BERT's masking: (inputs_BL, positions_BP, labels_BP, weights_BP), with P = n_predictions slots.

    round(mask_fraction * n), at least 1 and at most P, distinct positions are chosen uniformly among the n with an ordinary
    token (id >= first_ordinary_id): padding and separators do not make the rest of a row harder. Of these, 80% show [MASK],
    10% a token drawn from all of [first_ordinary_id, vocab_size), 10% the token itself. Special tokens are never chosen and
    never drawn. Positions ascend. The surplus slots are the last ones, with weight 0, position 0, label 0; all other weights
    are 1.

    uniforms_BU, in [0, 1): L numbers that rank the positions (the lowest are chosen), then for each slot, in order
    of position, P that choose between mask, random and kept, then P that draw the random token.
    ValueError: shapes that do not fit, more predictions than tokens, a vocabulary without ordinary tokens.
    """
    B, L = tokens_BL.shape
    P = n_predictions
    if not 1 <= P <= L:
        raise ValueError(f"n_predictions: got {P}, expected 1 to the {L} tokens of a sequence; lower mask_fraction")
    if vocab_size <= first_ordinary_id:
        raise ValueError(f"vocab_size: got {vocab_size}, expected more than the {first_ordinary_id} special tokens")
    if uniforms_BU.shape != (B, uniforms_per_sequence(L, P)):
        raise ValueError(f"uniforms_BU: got {uniforms_BU.shape}, expected {(B, uniforms_per_sequence(L, P))}")
    rank_BL, action_BP, draw_BP = np.split(uniforms_BU, [L, L + P], axis=1)

    row_B1 = np.arange(B)[:, None]
    rank_BL = np.where(tokens_BL >= first_ordinary_id, rank_BL, 1.0)  # 1.0: after every ordinary position
    wanted_B = np.rint(mask_fraction * (rank_BL < 1.0).sum(axis=1)).clip(1, P)
    chosen_BP = np.argpartition(rank_BL, P - 1, axis=1)[:, :P]
    chosen_BP = np.take_along_axis(chosen_BP, np.argsort(rank_BL[row_B1, chosen_BP], axis=1), axis=1)  # the lowest first
    is_chosen_BP = (np.arange(P) < wanted_B[:, None]) & (rank_BL[row_B1, chosen_BP] < 1.0)
    positions_BP = np.sort(np.where(is_chosen_BP, chosen_BP, L), axis=1)  # L: the surplus goes last
    is_real_BP = positions_BP < L
    positions_BP = np.where(is_real_BP, positions_BP, 0)

    inputs_BL = tokens_BL.astype(np.int64)
    labels_BP = np.where(is_real_BP, inputs_BL[row_B1, positions_BP], 0)
    random_BP = first_ordinary_id + (draw_BP * (vocab_size - first_ordinary_id)).astype(np.int64)
    shown_BP = np.where(action_BP < P_MASK, mask_id, np.where(action_BP < P_MASK + P_RANDOM, random_BP, labels_BP))
    row_BP = np.broadcast_to(row_B1, (B, P))
    inputs_BL[row_BP[is_real_BP], positions_BP[is_real_BP]] = shown_BP[is_real_BP]
    return inputs_BL, positions_BP, labels_BP, is_real_BP.astype(np.float32)
