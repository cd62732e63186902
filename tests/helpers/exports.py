"""Models as `export` writes them, with weights far from any start."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.config.load import as_dict, changed, load_recipe
from pipeline.config.schema import RunConfig
from pipeline.export.export import Trained, write
from pipeline.model.build import build_model
from pipeline.model.pretraining import PretrainingModel
from pipeline.model.task_model import TaskModel
from preprocessing.text.tokenizer import load

SEED = 20261128
LENGTH = 24
SHAPE = {"layers": 2, "width": 16, "heads": 2, "ffn_width": 32, "max_seq_len": LENGTH}
LEARNED: dict[str, Any] = {"positions": "learned", "token_types": True}
SUMMED = {"embedding": "summed", "head": "invariant", "mask_embedding": "learned"}
WIRINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "the paper's": ("base-paper", {}),
    "sibert-a, invariant, rotary": ("base-paper", {"head": "invariant", "positions": "rotary", "token_types": False}),
    "sibert-a, squared": ("base-paper", {"attention_power": 2}),
    "sibert-d, tied": ("tiny", {}),
    "sibert-d, tied, learned, no norm": ("tiny", {**LEARNED, "final_norm": False, "branch_scale": 0.5, "attention_power": 3}),
    "sibert-d, summed": ("tiny", {**LEARNED, **SUMMED}),
    "bert, rotary": ("tiny-bert", {"positions": "rotary", "token_types": False}),
    "bert, zero [MASK]": ("tiny-bert", {**LEARNED, "mask_embedding": "zero"}),
    "plain bert": ("tiny-bert", LEARNED),
    "plain bert without types": ("tiny-bert", {"positions": "learned", "token_types": False}),
}


def configuration(recipe: str, model: dict[str, Any], **more: Any) -> RunConfig:
    values = {
        **{f"model.{key}": value for key, value in {**SHAPE, **model}.items()},
        "data.seq_len": LENGTH,
        "data.objective": "mlm",
        **more,
    }
    return changed(load_recipe(recipe), values)


@torch.no_grad()
def trained(config: RunConfig, corpus: Path) -> Trained:
    """A model with weights far from any start, so that every one of them shows in the logits."""
    tokenizer = load(corpus / "tokenizer.model")
    size = tokenizer.get_piece_size()
    torch.manual_seed(SEED)
    model: PretrainingModel | TaskModel = TaskModel(config, size, 3)
    if config.task.name == "pretraining":
        model = build_model(config, size, torch.arange(size).numpy())
    for parameter in model.parameters():
        parameter.normal_(0, 0.3)
    record = {"recipe": "r", "corpus_sha256": "c", "tokenizer_sha256": "t", "vocab_size": size, "step": 7}
    return Trained(config, model.eval(), tokenizer, {**record, "config": as_dict(config)})


def exported(folder: Path, what: Trained) -> Path:
    folder.mkdir()
    write(folder, what, "# card\n")
    return folder


def states(model: Any, batch: dict[str, Tensor]) -> Tensor:
    return model.encoder(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"].float())
