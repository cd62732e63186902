"""The baseline under the names that transformers' BERT has for the same tensors."""

import re

# Ours, theirs; the first that a name begins with.
_PREFIXES = (
    ("encoder.embedding.token.", "bert.embeddings.word_embeddings."),
    ("encoder.embedding.position.", "bert.embeddings.position_embeddings."),
    ("encoder.embedding.token_type.", "bert.embeddings.token_type_embeddings."),
    ("encoder.embedding_norm.", "bert.embeddings.LayerNorm."),
    ("mlm_head.transform.dense.", "cls.predictions.transform.dense."),
    ("mlm_head.transform.norm.", "cls.predictions.transform.LayerNorm."),
    ("mlm_head.bias", "cls.predictions.bias"),
    ("nsp_head.pooler.", "bert.pooler.dense."),
    ("nsp_head.classifier.", "cls.seq_relationship."),
    ("head.pooler.", "bert.pooler.dense."),
)
_IN_A_LAYER = {
    "attention.query.": "attention.self.query.",
    "attention.key.": "attention.self.key.",
    "attention.value.": "attention.self.value.",
    "attention.output.": "attention.output.dense.",
    "attention_norm.": "attention.output.LayerNorm.",
    "ffn.inner.": "intermediate.dense.",
    "ffn.output.": "output.dense.",
    "ffn_norm.": "output.LayerNorm.",
}
_OUTPUTS = {"mnli": "classifier.", "squad1": "qa_outputs.", "squad2": "qa_outputs."}
TOKEN_TYPES = "bert.embeddings.token_type_embeddings.weight"  # transformers' BERT always has them


def bert_name(name: str, task: str) -> str:
    """The name of a parameter of ours; `task`: what the head is for (`config.task.name`)."""
    if layer := re.fullmatch(r"encoder\.layers\.(\d+)\.(\w+\.(?:\w+\.)?)(weight|bias)", name):
        return f"bert.encoder.layer.{layer[1]}.{_IN_A_LAYER[layer[2]]}{layer[3]}"
    if name.startswith("head.output."):
        return _OUTPUTS[task] + name.removeprefix("head.output.")
    ours, theirs = next(pair for pair in _PREFIXES if name.startswith(pair[0]))
    return theirs + name.removeprefix(ours)
