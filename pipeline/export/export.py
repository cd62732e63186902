"""A run's newest checkpoint as a folder for transformers, whole or not at all. Nothing here needs transformers itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentencepiece import SentencePieceProcessor
from torch import Tensor, nn

from pipeline.checkpoint.tensor_file import write_tensors
from pipeline.config.load import from_dict
from pipeline.config.schema import RunConfig
from pipeline.export import card
from pipeline.export.configuration import MODULE, transformers_config
from pipeline.export.tokenizer import tokenizer_config, tokenizer_json
from pipeline.finetune.model import load_finetuned
from pipeline.run.bert_names import TOKEN_TYPES
from pipeline.run.exported import (
    CONFIG_FILE,
    RECORD_KEYS,
    WEIGHTS_FILE,
    exported_name,
    folded_state,
    is_exported,
    is_plain_bert,
)
from pipeline.run.trained import load_run, read_run_file
from preprocessing.base.files import new_directory, write_whole
from preprocessing.text.tokenizer import load


@dataclass(frozen=True)
class Trained:
    """What is exported."""

    config: RunConfig
    model: nn.Module
    tokenizer: SentencePieceProcessor
    record: Mapping[str, Any]


def export(run_dir: Path, out: Path, data_dir: Path | None = None) -> Trained:
    """Write the folder `out`. `data_dir`: the run's corpus, if it has moved.

    ValueError if `out` exists, if the run has no checkpoint, or for whatever `load_run` refuses.
    """
    with new_directory(out) as folder:  # first: a name that is taken is said before the work
        trained = read_trained(run_dir, data_dir)
        write(folder, trained, card.card(run_dir, trained.config, trained.record, out.name))
    return trained


def write(folder: Path, trained: Trained, card_text: str) -> None:
    """The files of an exported model, into a directory that is there."""
    write_tensors(folder / WEIGHTS_FILE, weights(trained.model, trained.config), {"format": "pt"})
    files: dict[str, str | dict[str, Any]] = {
        "tokenizer.json": tokenizer_json(trained.tokenizer),
        "tokenizer_config.json": tokenizer_config(trained.config.model.max_seq_len),
        "README.md": card_text,
        CONFIG_FILE: transformers_config(trained.config, trained.record),
    }
    if not is_plain_bert(trained.config):
        files[f"{MODULE}.py"] = Path(__file__).with_name(f"{MODULE}.py").read_text(encoding="utf-8")
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_whole(folder / name, text.encode())


def read_trained(run_dir: Path, data_dir: Path | None) -> Trained:
    """The newest model of a run, pretrained or fine-tuned, with its tokenizer."""
    if is_exported(run_dir):
        raise ValueError(f"{run_dir} is an exported model already: expected a run directory")
    saved = read_run_file(run_dir)
    model: nn.Module
    if from_dict(saved["config"], where=f"{run_dir}/config.json").task.name == "pretraining":
        config, corpus, model, step = load_run(run_dir, data_dir)
        tokenizer = load(corpus.tokenizer_path)
    else:
        config, tokenizer, model, step = load_finetuned(run_dir)
    # Where recipe and corpus lie on this machine is nobody else's business.
    values = {**saved, "step": step, "recipe": Path(saved["recipe"]).name}
    return Trained(config, model, tokenizer, {key: values[key] for key in RECORD_KEYS})


def weights(model: nn.Module, config: RunConfig) -> dict[str, Tensor]:
    """Every tensor by the name that it has in the file, Admin's ω folded into the others."""
    found = {exported_name(name, config): tensor.detach() for name, tensor in folded_state(model).items()}
    if is_plain_bert(config) and not config.model.token_types:
        found[TOKEN_TYPES] = torch.zeros(2, config.model.width)
    return found
