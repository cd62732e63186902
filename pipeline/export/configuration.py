"""config.json of an exported model: transformers' own BERT where it is one, else `modeling_sibert.py`'s."""

from collections.abc import Mapping
from typing import Any

from pipeline.config.schema import RunConfig
from pipeline.run.exported import TRAINED_BY, is_plain_bert
from pipeline.tasks.examples import LABELS
from preprocessing.corpus.reader import MASK_ID, PAD_ID

MODULE = "modeling_sibert"
DROPOUT = 0.1  # of further training; none in evaluation
HEADS = {
    "AutoModelForMaskedLM": "ForMaskedLM",
    "AutoModelForSequenceClassification": "ForSequenceClassification",
    "AutoModelForQuestionAnswering": "ForQuestionAnswering",
}
_OF_A_TASK = {"pretraining": "ForMaskedLM", "mnli": "ForSequenceClassification"}


def architecture(config: RunConfig) -> str:
    """The class whose weights these are."""
    prefix = "Bert" if is_plain_bert(config) else "Sibert"
    return prefix + _OF_A_TASK.get(config.task.name, "ForQuestionAnswering")


def transformers_config(config: RunConfig, record: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of config.json. `record`: what is trained on what (`run.exported.RECORD_KEYS`)."""
    model = config.model
    labels = {}
    if config.task.name == "mnli":
        labels = {
            "id2label": {str(i): name for i, name in enumerate(LABELS)},
            "label2id": {name: i for i, name in enumerate(LABELS)},
        }
    shape = {
        "vocab_size": record["vocab_size"],
        "hidden_size": model.width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "intermediate_size": model.ffn_width,
        "max_position_embeddings": model.max_seq_len,
        "hidden_dropout_prob": DROPOUT,
        "initializer_range": model.init_std,
        "layer_norm_eps": 1e-12,
        "pad_token_id": PAD_ID,
        "dtype": "float32",
    }
    kind = _bert() if is_plain_bert(config) else _sibert(config)
    return {**kind, "architectures": [architecture(config)], **shape, **labels, TRAINED_BY: dict(record)}


def _bert() -> dict[str, Any]:
    return {
        "model_type": "bert",
        "hidden_act": "gelu",
        "attention_probs_dropout_prob": 0.0,  # as in fine-tuning here
        "type_vocab_size": 2,
        "tie_word_embeddings": True,
    }


def _sibert(config: RunConfig) -> dict[str, Any]:
    model = config.model
    classes = {"AutoConfig": "SibertConfig", "AutoModel": "SibertModel"}
    classes |= {auto: f"Sibert{head}" for auto, head in HEADS.items()}
    return {
        "model_type": "sibert",
        "auto_map": {auto: f"{MODULE}.{name}" for auto, name in classes.items()},
        "wiring": model.encoder,
        "head": model.head,
        "embedding": model.embedding,
        "positions": model.positions,
        "position_scale": model.position_scale,
        "token_types": model.token_types,
        "mask_embedding": model.mask_embedding,
        "branch_scale": model.branch_scale,
        "attention_power": model.attention_power,
        "final_norm": model.final_norm,
        "tau": model.tau,
        "task_head": config.task.head,
        "mask_token_id": MASK_ID,
        "tie_word_embeddings": False,
    }
