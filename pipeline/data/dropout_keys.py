"""What a sample's dropout masks follow from.

Shapes: B samples.
"""

import numpy as np

from pipeline.data.batch import Ints
from pipeline.data.order import mixed

DROPOUT = 0x64726F706F7574  # keeps these keys apart from the keys of orders


def dropout_keys(seed: int, consumed_B: Ints) -> Ints:
    """int64 keys [B] of the samples with these global counters (`rank_indices`), which name step and place in it at once."""
    key = mixed(np.array([seed], dtype=np.uint64) + np.uint64(DROPOUT))
    return mixed(key + consumed_B.astype(np.uint64)).view(np.int64)
