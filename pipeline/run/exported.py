"""A folder that `export` wrote, read back: also after transformers loaded it, changed its weights and saved it again.

config.json          transformers' configuration; its entry `trained_by` is what the run says of itself, and the step
model.safetensors    the weights, under our names; the plain BERT's under transformers' (`bert_names.py`)
modeling_sibert.py, tokenizer.json, tokenizer_config.json, README.md
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pipeline.config.load import changed, from_dict
from pipeline.config.schema import RunConfig
from pipeline.model.build import build_model
from pipeline.model.pretraining import PretrainingModel
from pipeline.model.shortcut import folded
from pipeline.run.bert_names import TOKEN_TYPES, bert_name
from preprocessing.base.json_file import read_object
from preprocessing.corpus.reader import Corpus, Verify, open_corpus

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
TRAINED_BY = "trained_by"
RECORD_KEYS = {"recipe": str, "corpus_sha256": str, "tokenizer_sha256": str, "vocab_size": int, "config": dict, "step": int}
BIAS = "mlm_head.bias_bits"  # of a row-normalised decoder: fixed, no parameter, but part of what the model computes


@dataclass(frozen=True)
class Exported:
    """`record`: as RECORD_KEYS; `config`: the one in it, without Admin's ω, which `export` folds away. Tensors are asked for by
    OUR names, those of `state`."""

    directory: Path
    record: Mapping[str, Any]
    config: RunConfig
    file: Any  # open, of safetensors

    def shape(self, name: str) -> list[int] | None:
        """Of a tensor; None if it is not there."""
        theirs = exported_name(name, self.config)
        return list(self.file.get_slice(theirs).get_shape()) if theirs in self.file.keys() else None  # noqa: SIM118 (no dict)

    def tensor(self, name: str) -> Tensor:
        """A parameter in float32, or BIAS. ValueError if it holds numbers of another kind, or such that are not finite."""
        theirs = exported_name(name, self.config)
        found: Tensor = self.file.get_tensor(theirs)
        right = found.dtype == torch.int32 if name == BIAS else found.is_floating_point() and bool(found.isfinite().all())
        if not right:
            raise ValueError(
                f"{self.directory / WEIGHTS_FILE}: {theirs} holds {found.dtype} that are no weights: expected finite numbers "
                "(int32 for bias_bits): the file is damaged, or what trained it further diverged; export the run again"
            )
        return found if name == BIAS else found.float()

    @torch.no_grad()
    def fill(self, model: nn.Module) -> None:
        """Give the model all its tensors. ValueError naming the first that is missing or has another shape."""
        for name, tensor in state(model).items():
            shape, expected = self.shape(name), list(tensor.shape)
            if shape != expected:
                raise ValueError(
                    f"{self.directory / WEIGHTS_FILE}: {exported_name(name, self.config)} is {shape or 'missing'}, expected "
                    f"{expected}: saved with another head or vocabulary; export the run again"
                )
            tensor.copy_(self.tensor(name))


def is_plain_bert(config: RunConfig) -> bool:
    """Is the model one that transformers has itself?"""
    model, invariant = config.model, config.task.name != "pretraining" and config.task.head == "invariant"
    return model.encoder == "bert" and model.positions == "learned" and model.mask_embedding == "learned" and not invariant


def exported_name(name: str, config: RunConfig) -> str:
    """The name in the weights' file of a tensor of ours."""
    return bert_name(name, config.task.name) if is_plain_bert(config) else name


def folded_state(model: nn.Module) -> dict[str, Tensor]:
    """`state` of a plain Post-LN BERT that computes what a model with Admin's shortcuts does; of any other model its own."""
    rest = {name: tensor for name, tensor in state(model).items() if not name.startswith("encoder.")}
    return {**{f"encoder.{name}": tensor for name, tensor in folded(model.get_submodule("encoder")).items()}, **rest}


def state(model: nn.Module) -> dict[str, Tensor]:
    """All parameters of a model, and BIAS if it has one, by our names: all that it computes with."""
    fixed = {name: buffer for name, buffer in model.named_buffers() if name == BIAS}
    return {**dict(model.named_parameters()), **fixed}


def is_exported(directory: Path) -> bool:
    """Does it hold a model in transformers' format (whoever wrote it), and not a run?"""
    path = directory / CONFIG_FILE
    return path.is_file() and "model_type" in read_object(path)


def read_exported(directory: Path) -> Exported:
    """The model in a folder; ValueError if it is not of `export`, or is damaged."""
    record = read_object(directory / CONFIG_FILE).get(TRAINED_BY)
    if not isinstance(record, dict) or any(not isinstance(record.get(key), kind) for key, kind in RECORD_KEYS.items()):
        raise ValueError(f"{directory}: its {CONFIG_FILE} has no whole `{TRAINED_BY}`: expected a folder that `export` wrote")
    config = from_dict(record["config"], where=f"{directory / CONFIG_FILE}: {TRAINED_BY}")
    if config.model.init == "admin":
        config = changed(config, {"model.init": "normal"})
    path = directory / WEIGHTS_FILE
    try:
        file = safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error}): export the run again") from error
    has_types = is_plain_bert(config) and not config.model.token_types and TOKEN_TYPES in file.keys()  # noqa: SIM118 (no dict)
    if has_types and file.get_tensor(TOKEN_TYPES).any():
        raise ValueError(f"{path}: {TOKEN_TYPES} is not zero: it was trained elsewhere, and this model here has no token types")
    return Exported(directory, record, config, file)


def corpus_of_tokenizer(
    data_dir: Path, tokenizer_sha256: str, whose: Path, trained: str, remedy: str, verify: Verify = "hashes"
) -> Corpus:
    """The corpus at --data; ValueError unless its tokenizer is the one that `trained` ("the run") at `whose` was trained with:
    to another one's tokens a model knows nothing to say."""
    corpus = open_corpus(data_dir, verify)
    theirs = corpus.manifest.tokenizer_sha256
    if theirs != tokenizer_sha256:
        raise ValueError(
            f"--data {data_dir} has another tokenizer than {whose}: sha256 {theirs[:12]}…, {trained} was trained with "
            f"{tokenizer_sha256[:12]}…; {remedy}"
        )
    return corpus


def read_pretrained(directory: Path) -> Exported:
    """As `read_exported`; ValueError for a fine-tuned one, too."""
    found = read_exported(directory)
    if found.config.task.name != "pretraining":
        raise ValueError(f"{directory} is fine-tuned on {found.config.task.name}: expected the export of a pretraining run")
    return found


def load_exported(directory: Path, data_dir: Path | None) -> tuple[RunConfig, Corpus, PretrainingModel, int]:
    """(configuration, corpus, model, step) as `load_run` gives them. ValueError for a fine-tuned one, and for a corpus of
    another tokenizer: of its tokens the model knows nothing."""
    found = read_pretrained(directory)
    if data_dir is None:
        raise ValueError(f"{directory} is an exported model: give a corpus of its tokenizer with --data")
    remedy = "give a corpus that was built with that one"
    corpus = corpus_of_tokenizer(data_dir, found.record["tokenizer_sha256"], directory, "the model", remedy)
    model = build_model(found.config, corpus.vocab_size)
    found.fill(model)
    return found.config, corpus, model, found.record["step"]
