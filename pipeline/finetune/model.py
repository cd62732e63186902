"""The model of a fine-tuning: made from a pretrained run, or read from a fine-tuned one."""

import sys
from pathlib import Path

import sentencepiece
import torch

from pipeline.checkpoint import probe
from pipeline.checkpoint.resume import newest
from pipeline.config.load import from_dict
from pipeline.config.schema import RunConfig
from pipeline.finetune.source import Source
from pipeline.init.normal import init_weights
from pipeline.model.build import build_task_model
from pipeline.model.pretraining import parameter_shapes
from pipeline.model.task_model import TaskModel
from pipeline.run.directory import check_same
from pipeline.run.exported import is_exported
from pipeline.run.trained import read_run_file
from preprocessing.base.files import file_sha256
from preprocessing.text.tokenizer import load

TOKENIZER = "tokenizer.model"  # a fine-tuned run has a copy of the corpus' own


@torch.no_grad()
def initial_model(config: RunConfig, source: Source) -> TaskModel:
    """A new head, from the seed, on the source's encoder (from scratch: a new encoder, too)."""
    model = build_task_model(config, source.corpus.vocab_size)
    init_weights(model, config.model, config.train.seed)
    if source.encoder is not None:
        for name, parameter in model.encoder.named_parameters():
            parameter.copy_(source.encoder[name])
    return model


def load_finetuned(run_dir: Path) -> tuple[RunConfig, sentencepiece.SentencePieceProcessor, TaskModel, int]:
    """(configuration, tokenizer, model with the newest checkpoint's weights, its step) of a run of `finetune`. ValueError if it
    is a pretraining run, has no checkpoint, or its vocabulary is another one."""
    if is_exported(run_dir):
        raise ValueError(
            f"{run_dir} is an exported model, which transformers asks; expected a seed's folder of `finetune --out`"
        )
    saved = read_run_file(run_dir)
    config = from_dict(saved["config"], where=f"{run_dir}/config.json")
    if config.task.name == "pretraining":
        raise ValueError(f"{run_dir} is a pretraining run, without a task's head: expected a seed's folder of `finetune --out`")
    found = newest(run_dir, complain=lambda text: print(text, file=sys.stderr))
    if found is None:
        raise ValueError(f"{run_dir} has no checkpoint yet: let `python -m pipeline finetune` run to its end first")
    check_same(found.manifest["made_from"], saved, found.directory, "it is not this run's: move it away")
    tokenizer = load(run_dir / TOKENIZER)
    if file_sha256(run_dir / TOKENIZER) != saved["tokenizer_sha256"] or len(tokenizer) != saved["vocab_size"]:
        raise ValueError(
            f"{run_dir / TOKENIZER}: not the vocabulary that the run was trained with ({saved['vocab_size']} pieces, sha256 "
            f"{saved['tokenizer_sha256'][:12]}…): copy that of its corpus, {saved['data']}"
        )
    model = build_task_model(config, saved["vocab_size"])
    found.check_covers(parameter_shapes(model))
    found.load_parameters(model)
    probe.check(found, probe.loss(model, probe.stored_batch(found)))
    return config, tokenizer, model.eval(), found.step
