"""A run directory such as training leaves, written in milliseconds: for those that read it."""

import json
import math
import random
from pathlib import Path
from typing import Any

ENTROPY = 6.75


def write_run(run_dir: Path, sgd: bool = True, steps: int = 400, finished: bool = True, **changes: Any) -> Path:
    """A run directory such as training leaves: the numbers are made up, their course is not."""
    rng = random.Random(f"{sgd} {steps}")
    run_dir.mkdir(parents=True, exist_ok=True)
    lr, wd, x, clipped, sigma_square = 0.8, 0.05, 30.0, 0, 0.0
    lines = []
    for step in range(1, steps + 1):
        fall = 3.6 * math.exp(-step / 60) + 0.6 * math.exp(-step / 300)
        now = lr * (1 - (step - 1) / steps)
        gradient = 55 / x * math.exp(rng.gauss(0, 0.15)) * (3 if rng.random() < 0.01 else 1)
        threshold = math.sqrt(4 * wd / now) * x
        clipped += gradient > threshold
        sigma_square += ((gradient * x) ** 2 - sigma_square) / min(step, 100)
        equilibrium = math.sqrt(math.sqrt(sigma_square * now / wd / (2 - now * wd)))
        x = math.sqrt(((1 - now * wd) * x) ** 2 + (now * min(gradient, threshold)) ** 2)
        row = {"kind": "train", "attempt": 1, "step": step, "loss": 5.6 + fall + rng.gauss(0, 0.06), "lr": now,
               "head_lr": 0.3 * now, "param_norm": x, "grad_norm": gradient, "tokens": step * 4096,
               "clip_threshold": threshold if sgd else None, "clipped_fraction": clipped / step if sgd else 1.0,
               "equilibrium_norm": equilibrium if sgd else None,
               "tokens_per_s": 21_000 + rng.gauss(0, 600)}  # fmt: skip
        lines.append(row)
        if step % 40 == 0:
            lines.append({"kind": "eval", "attempt": 1, "step": step, "heldout_loss": 5.66 + fall,
                          "heldout_mask_loss": 5.85 + fall, "heldout_unigram_entropy_nats": ENTROPY})  # fmt: skip
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    documents: dict[str, Any] = {
        "config": {
            "recipe": "tiny",
            "data": "demo/corpus",
            "corpus_sha256": "5ca1ab1e",
            "config": {
                "description": "SIBERT, small enough for a laptop",
                "model": {"encoder": "sibert-a", "layers": 4, "width": 192},
                "data": {"seq_len": 128, "objective": "mlm"},
                "batch": {"global_sequences": 32, "micro_sequences": 8},
                "optim": {"rule": "sgd" if sgd else "adamw", "lr": lr, "weight_decay": wd, "clip_c": 2.0},
                "train": {"steps": steps, "seed": 0},
            },
        },
        "ds_config": {"zero_optimization": {"stage": 1}, "gradient_clipping": 0.0},
        "versions": {"python": "3.11.9", "torch": "2.13.0", "deepspeed": "0.19.8", "git_commit": "0123abc",
                     "command": ["python", "-m", "pipeline", "pretrain", "--recipe", "tiny"]},
        "summary": {"final_train_loss": 5.77, "heldout_loss": 5.82, "heldout_mask_loss": 6.01, "steps": steps,
                    "heldout_unigram_entropy_nats": ENTROPY, "heldout_unigram_cross_entropy_nats": 6.78,
                    "tokens": steps * 4096, "tokens_per_s": 21_034.2, "clipped_fraction": 0.0125 if sgd else None,
                    "skipped_steps": 0, "param_norm": x, "equilibrium_norm": 7.2, "equilibrium_step": 210,
                    "equilibrium_param_norm": 7.4, "peak_memory_bytes": 1_288_490_188, "parameters": 3_417_088,
                    "train_time_s": 78.4, "world_size": 2, "seed": 0, "recipe": "tiny", "surprise": "an unknown key",
                    "versions": {"torch": "2.13.0"}},
    }  # fmt: skip
    if not finished:
        documents.pop("summary")
    for name, document in (documents | changes).items():
        (run_dir / f"{name}.json").write_text(json.dumps(document))
    return run_dir


def with_what_it_has_learnt(run_dir: Path) -> Path:
    """The same run by a version that has the loss by token frequency and the sentences."""
    bins = [
        {
            "pieces": 10**at,
            "fewest": fewest,
            "most": 9 * fewest,
            "mask": {"predictions": 100, "loss": 2.0 + at, "unigram_loss": 3.0 + at},
            "visible": {"predictions": 0, "loss": None, "unigram_loss": None},
        }
        for at, fewest in enumerate((123_456, 1_100, 39))
    ]
    summary = json.loads((run_dir / "summary.json").read_text())
    summary |= {"heldout_visible_loss": 4.321, "heldout_by_frequency": {"bins": bins}}
    (run_dir / "summary.json").write_text(json.dumps(summary))
    pieces = {"▁the": 0.714, "ing": 0.05, "<b>": 0.01}
    guesses = [{"piece": piece, "probability": probability} for piece, probability in pieces.items()]
    masks = [{"truth": "▁the", "guesses": guesses}, {"truth": "▁end", "guesses": guesses[::-1]}]
    sentence = {"text": "<i>in [MASK] beginning & [MASK].", "masks": masks}
    (run_dir / "guesses.json").write_text(json.dumps({"step": 400, "sentences": [sentence]}))
    return run_dir
