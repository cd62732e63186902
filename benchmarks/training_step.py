"""Tokens a second of one training step, beside the usual ways to train a BERT of the same size, and beside the floor.

    python -m benchmarks.training_step --sizes mini base --precisions fp32 bf16 --tokens 4096

One process, random tokens, 15% of them predicted. In turn within one run, medians:

    ours          the recipe `base` at this size in the real engine (ZeRO 1): what `pretrain` does in a step, but for the data
    plain loop    the same model and batch with torch's fused SGD: forward, backward, update. What ours has more is the
                  engine, norms and fp32 masters
    compiled      with --compile: that loop with each layer through torch.compile, which needs a C++ compiler
    BERT          transformers' BertForMaskedLM, scaled_dot_product_attention, torch's fused AdamW; bf16 by autocast
    ModernBERT    its class in transformers, logits at masked positions alone, the same optimiser; its gated feed-forward
                  layer has 2/3 of the width, so that it has the others' parameters

The floor of ours is its matrix products and nothing else, timed in the same run: benchmarks/floor.py. Needs
benchmarks/requirements.txt.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.floor import SIZES, Size, floor, operations
from benchmarks.timing import medians_s
from pipeline.config.batch import BatchArithmetic
from pipeline.config.ds_config import deepspeed_dictionary, load_ds_config
from pipeline.config.load import load_recipe
from pipeline.config.schema import RunConfig
from pipeline.data.batch import Batch
from pipeline.data.masking import predictions_per_sequence
from pipeline.data.random_batch import random_batch
from pipeline.distributed.launch import world_from
from pipeline.engine.build import build_engine
from pipeline.engine.processes import start_processes
from pipeline.init.normal import init_weights
from pipeline.model.attention import attention_line
from pipeline.model.build import build_model
from pipeline.optim.groups import parameter_groups
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.train.state import TrainState
from pipeline.train.trainer import Trainer

OURS, PLAIN, COMPILED, BERT, MODERN_BERT = "ours", "plain loop", "compiled", "BERT", "ModernBERT"
NEVER = 1_000_000  # steps: nothing is logged
# Dense bf16 operations a second on tensor cores, as the maker says; of the first name that the GPU's begins with.
NOMINAL = {"NVIDIA H100 PCIe": 756e12, "NVIDIA H100": 989e12, "NVIDIA H200": 989e12, "NVIDIA A100": 312e12}


@dataclass(frozen=True)
class Row:
    """What one size in one precision took: median seconds of a step by candidate, the floor's, operations of a step of ours."""

    size: str
    precision: str
    tokens: int
    seconds: dict[str, float]
    floor_s: float
    operations: float
    attention: str
    device: str

    @property
    def tokens_per_s(self) -> float:
        """Of ours."""
        return self.tokens / self.seconds[OURS]

    @property
    def mfu(self) -> float | None:
        """Operations of ours a second, as a part of what the GPU's maker says it does; None for a GPU not in NOMINAL."""
        nominal = next((rate for name, rate in NOMINAL.items() if self.device.startswith(name)), None)
        return None if nominal is None or self.precision != "bf16" else self.operations / self.seconds[OURS] / nominal


def recipe_of(size: Size, precision: str, sequences: int) -> RunConfig:
    """`base` at another size."""
    sizes = {
        "model.layers": size.layers,
        "model.width": size.width,
        "model.heads": size.heads,
        "model.ffn_width": size.ffn_width,
        "model.init": "normal",
        "model.max_seq_len": size.seq_len,
        "data.seq_len": size.seq_len,
        "batch.global_sequences": sequences,
        "batch.micro_sequences": sequences,
        "train.ds_config": "zero1" + "-bf16" * (precision == "bf16"),
        "train.steps": NEVER,
        "train.log_every_steps": NEVER,
    }
    return load_recipe("base", [f"{key}={value}" for key, value in sizes.items()])


def ours(config: RunConfig, size: Size, batch: Batch, device: torch.device) -> Callable[[], None]:
    """A step of the Trainer with the real engine."""
    model = build_model(config, size.vocabulary).to(device)
    init_weights(model, config.model, seed=0)
    optimizer = PretrainingOptimizer(parameter_groups(model, config))
    sequences = config.batch.micro_sequences
    dictionary = deepspeed_dictionary(load_ds_config(config.train.ds_config), BatchArithmetic(1, sequences, 1, sequences))
    built = build_engine(model, optimizer, dictionary, device, config.train.split_masters)
    rates = dict.fromkeys(("sgd", "lamb", "adamw"), 1e-3)
    state = TrainState.new(device)
    trainer = Trainer(built, optimizer, state, config.train, lambda step: [batch], lambda step: rates)
    return trainer.train_step


def plain_loop(
    config: RunConfig, size: Size, batch: Batch, dtype: torch.dtype, device: torch.device, compiled: bool = False
) -> Callable[[], None]:
    """The same model, without anything around it."""
    model = build_model(config, size.vocabulary).to(device)
    init_weights(model, config.model, seed=0)
    model.to(dtype)
    if compiled:
        for layer in model.encoder.layers:
            layer.compile(dynamic=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, weight_decay=1e-3, fused=True)

    def step() -> None:
        model(batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def usual(model: nn.Module, batch: Batch, dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    """A model of transformers with AdamW, in bf16 by autocast over fp32 weights."""
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    labels_BL = torch.full_like(batch.input_ids, -100).scatter(1, batch.positions, batch.labels)
    mask_BL = torch.ones_like(batch.input_ids)

    def step() -> None:
        with torch.autocast(device.type, dtype) if dtype == torch.bfloat16 else nullcontext():
            loss = model(input_ids=batch.input_ids, attention_mask=mask_BL, labels=labels_BL).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def bert(size: Size) -> nn.Module:
    """transformers' BertForMaskedLM; without dropout, as ours in pretraining."""
    from transformers import BertConfig, BertForMaskedLM

    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    shape = {"max_position_embeddings": size.seq_len, "intermediate_size": size.ffn_width, "attn_implementation": "sdpa"}
    made: nn.Module = BertForMaskedLM(BertConfig(**_common(size), **shape, **none))
    return made


def modern_bert(size: Size) -> nn.Module:
    """transformers' ModernBertForMaskedLM, which has no dropout by itself."""
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    shape = {"intermediate_size": size.ffn_width * 2 // 3 // 16 * 16, "max_position_embeddings": max(size.seq_len, 128)}
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    modern = ModernBertConfig(**_common(size), **shape, **special, sparse_prediction=True, attn_implementation="sdpa")
    made: nn.Module = ModernBertForMaskedLM(modern)
    return made


def _common(size: Size) -> dict[str, Any]:
    shape = {"hidden_size": size.width, "num_hidden_layers": size.layers, "num_attention_heads": size.heads}
    return {"vocab_size": size.vocabulary, **shape}


def measure(
    name: str, precision: str, tokens: int, rounds: int, device: torch.device, others: bool = True, compiled: bool = False
) -> Row:
    """One row of the table; `start_processes` comes before. `others`: with transformers' models; `compiled`: with that loop."""
    size, dtype = SIZES[name], torch.bfloat16 if precision == "bf16" else torch.float32
    sequences = max(1, tokens // size.seq_len)
    predictions = predictions_per_sequence(size.seq_len, 0.15)
    generator = torch.Generator().manual_seed(0)
    batch = random_batch(generator, sequences, size.seq_len, predictions, size.vocabulary, nsp=False).to(device)
    config = recipe_of(size, precision, sequences)
    candidates = {OURS: ours(config, size, batch, device), PLAIN: plain_loop(config, size, batch, dtype, device)}
    if compiled:
        candidates[COMPILED] = plain_loop(config, size, batch, dtype, device, compiled=True)
    if others:
        candidates[BERT] = usual(bert(size), batch, dtype, device)
        candidates[MODERN_BERT] = usual(modern_bert(size), batch, dtype, device)
    of_floor = floor(size, sequences, sequences * predictions, dtype, device)
    with torch.no_grad():
        of_products = medians_s({key: _awaited(run, device) for key, (_, run) in of_floor.items()}, max(3, rounds))
    return Row(
        name,
        precision,
        sequences * size.seq_len,
        medians_s({key: _awaited(run, device) for key, run in candidates.items()}, rounds),
        sum(count * of_products[key] for key, (count, _) in of_floor.items()),
        operations(size, sequences, sequences * predictions),
        attention_line(config, device, dtype) or "attention: blocks of torch's products",
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads",
    )


def _awaited(run: Callable[[], object], device: torch.device) -> Callable[[], None]:
    def whole() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return whole


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    beside = (PLAIN, COMPILED, BERT, MODERN_BERT)
    heads = ("size", "precision", "tokens a step", "tokens/s", *(f"/ {name}" for name in beside), "time / floor", "MFU")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        ours_s = row.seconds[OURS]
        faster = [f"{row.seconds[name] / ours_s:.2f}" if name in row.seconds else "–" for name in beside]
        mfu = "–" if row.mfu is None else f"{row.mfu:.0%}"
        cells = [
            row.size,
            row.precision,
            f"{row.tokens:,}",
            f"{row.tokens_per_s:,.0f}",
            *faster,
            f"{ours_s / row.floor_s:.2f}",
            mfu,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["mini", "base"])
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--tokens", type=int, default=4096, help="of a step")
    parser.add_argument("--rounds", type=int, default=7, help="timed turns of each candidate")
    parser.add_argument("--compile", action="store_true", help="with compiled layers, too; compiling takes minutes on a CPU")
    parser.add_argument("--json-file", type=Path, metavar="FILE", help="also write all seconds there")
    args = parser.parse_args()
    device = start_processes(world_from(os.environ))
    began_s, rows = time.perf_counter(), []
    for name in args.sizes:
        for precision in args.precisions:
            rows.append(measure(name, precision, args.tokens, args.rounds, device, compiled=args.compile))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    took = f"torch {torch.__version__}, {time.perf_counter() - began_s:.0f} s"
    print(f"\n{rows[0].device}, {took}; {rows[0].attention}\n\n{table(rows)}")
    if args.json_file is not None:
        args.json_file.write_text(json.dumps([{**vars(row), "mfu": row.mfu} for row in rows], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
