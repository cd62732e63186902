"""The model card: README.md of an exported folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.schema import RunConfig
from pipeline.export.configuration import architecture
from pipeline.report.summary_figures import FIGURES, amount, label
from pipeline.run.exported import TRAINED_BY, is_plain_bert
from preprocessing.base.json_file import read_object

SUMMARY = "summary.json"  # of a run that has reached its end
_USES = {
    "pretraining": ("fill-mask", "AutoModelForMaskedLM"),
    "mnli": ("text-classification", "AutoModelForSequenceClassification"),
    "squad1": ("question-answering", "AutoModelForQuestionAnswering"),
    "squad2": ("question-answering", "AutoModelForQuestionAnswering"),
}


def card(run_dir: Path, config: RunConfig, record: Mapping[str, Any], name: str) -> str:
    """The text. Its figures are those of the run's summary, if that is of the step which is exported."""
    tag, auto = _USES[config.task.name]
    remote = "" if is_plain_bert(config) else ", trust_remote_code=True"
    model = config.model
    return f"""---
library_name: transformers
pipeline_tag: {tag}
tags: [{"bert" if model.encoder == "bert" else "sibert"}]
---

# {name}

{architecture(config)}, {_kind(config)}: {model.layers} layers of width {model.width}, {model.heads} heads, at most
{model.max_seq_len} tokens, {record["vocab_size"]:,} pieces, uncased. Trained by recipe `{record["recipe"]}`
to step {record["step"]:,} of {config.train.steps:,} with {_rule(config)}.

```python
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}"{remote})
model = {auto}.from_pretrained("{name}"{remote})
```

{_code(config)}

## Figures

{_figures(run_dir, config, record)}

## What it was trained on

A corpus whose manifest has sha256 `{record["corpus_sha256"]}`, its tokenizer `{record["tokenizer_sha256"]}`.
`{TRAINED_BY}` in `config.json` holds the whole configuration of the run. The model knows what its text says, with its faults;
nothing was done to make it safe.
"""


def _kind(config: RunConfig) -> str:
    kind = {
        "bert": "a BERT (Devlin et al. 2019)",
        "sibert-a": "a scale invariant BERT in the paper's wiring",
        "sibert-d": "a scale invariant BERT whose stream has degree 0",
    }[config.model.encoder]
    return kind if config.task.name == "pretraining" else f"{kind}, fine-tuned on {config.task.name}"


def _rule(config: RunConfig) -> str:
    if config.optim.rule != "sgd":
        return {"adamw": "AdamW", "lamb": "LAMB"}.get(config.optim.rule, config.optim.rule)
    return "SGD, weight decay and relative clipping"


def _code(config: RunConfig) -> str:
    if is_plain_bert(config):
        return "It is transformers' own BERT: no code comes with it."
    return "`modeling_sibert.py` is the whole model in one file, and needs torch and transformers alone."


def _figures(run_dir: Path, config: RunConfig, record: Mapping[str, Any]) -> str:
    path = run_dir / SUMMARY
    summary = read_object(path) if path.is_file() else {}
    if not summary or record["step"] != config.train.steps:
        return f"None: the run stood at step {record['step']:,} of {config.train.steps:,} when it was exported."
    rows = [(label(key), amount(key, summary[key])) for key in FIGURES if summary.get(key) is not None and key != "recipe"]
    return "\n".join(["| figure | of the run |", "|---|---|", *(f"| {_cell(a)} | {_cell(b)} |" for a, b in rows)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
