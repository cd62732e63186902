"""Small runs whose memory is predicted and measured: a shape, and the recipes of each wiring."""

from pipeline.config.load import load_recipe
from pipeline.config.schema import RunConfig
from pipeline.memory.system import System

SHAPE = (
    *("model.layers=2", "model.width=256", "model.heads=4", "model.ffn_width=1024", "model.max_seq_len=64", "data.seq_len=64"),
    *("batch.micro_sequences=4", "batch.global_sequences=4", "train.update_elements=100000", "optim.schedule.warmup_steps=1"),
)
SIBERT = ("base-paper", "model.encoder=sibert-d", "model.head=invariant", "data.objective=mlm")
PAPER, BERT = ("base-paper",), ("base-paper-bert",)


def recipe(kind: tuple[str, ...], *settings: str) -> RunConfig:
    return load_recipe(kind[0], [*SHAPE, *kind[1:], *settings])


def system(kind: tuple[str, ...], ds_config: str, world_size: int = 1, *settings: str) -> System:
    return System("it", recipe(kind, f"train.ds_config={ds_config}", *settings), 4096, world_size)
