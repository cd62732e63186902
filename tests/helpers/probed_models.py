"""Small models whose invariance is probed, and a batch to probe them with."""

from pipeline.config.schema import DataConfig, ModelConfig, RunConfig
from pipeline.data.batch import Batch
from pipeline.model.invariance import TOLERANCES, probe_batch
from pipeline.model.pretraining import PretrainingModel
from pipeline.verify.invariance_report import probe_model

VOCAB, LENGTH = 50, 12
ALL_EXACT = TOLERANCES["float64"][0]  # 1e-12 of everything


def make(encoder: str, head: str, nsp: bool = False, layers: int = 4, heads: int = 2, seed: int = 1) -> PretrainingModel:
    """Of width 16, with scores well above 0: gradients through nearly empty attention rows are ill-conditioned, and that
    would be measured instead (score_offset in init/normal.py). Rows that are wholly empty are none such."""
    sizes = {"layers": layers, "width": 16, "heads": heads, "ffn_width": 24, "max_seq_len": LENGTH}
    model = ModelConfig(encoder=encoder, head=head, score_offset=1.5, **sizes)
    config = RunConfig(model=model, data=DataConfig(objective="mlm+nsp" if nsp else "mlm", seq_len=LENGTH))
    return probe_model(config, VOCAB, seed)


def batch(nsp: bool = False) -> Batch:
    return probe_batch(VOCAB, LENGTH, nsp, sequences=3, length=LENGTH, seed=2)
