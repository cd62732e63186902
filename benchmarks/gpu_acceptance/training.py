"""The whole program on this device: certified, measured, killed and resumed, and as its users run it."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu_acceptance.outcome import Check, LeftOut, at_least, at_most, holds
from benchmarks.gpu_acceptance.scope import Scope
from pipeline.checkpoint.layout import step_directories
from pipeline.config.load import load_recipe
from pipeline.memory.measure import measure
from pipeline.memory.predict import predict
from pipeline.memory.system import System, shipped
from pipeline.run.metrics_file import METRICS, read_metrics

TOY = ("model.layers=2", "model.width=32", "model.heads=2", "model.ffn_width=64", "model.max_seq_len=64", "data.seq_len=32")
TOY_BATCH = ("batch.global_sequences=16", "batch.micro_sequences=4")
SMALL_BATCH = ("batch.global_sequences=32", "batch.micro_sequences=32")
TIMES = ("tokens_per_s", "memory_bytes", "time_s", "attempt")  # what two equal runs may differ in


def certify(scope: Scope) -> list[Check]:
    """The engine under every file of ds_configs/, held against the recipe on paper; with 2 GPUs on 2 ranks, too."""
    file = scope.out / "certify.json"
    some = ("--ds-config", "zero1") if scope.is_toy else ()
    scope.program("pipeline", "certify", *some, "--json-file", file, timeout_s=1800)
    rows = json.loads(file.read_text(encoding="utf-8"))
    worst = max(row["parameters"] for row in rows)
    problems = [f"{row['ds_config']}, {row['world_size']} ranks: {row['problem']}" for row in rows if row["problem"]]
    ranks = sorted({row["world_size"] for row in rows})
    told = "; ".join(problems) or f"{len(rows)} of {len(rows)}, parameters off by {worst:.1e} at most, ranks {ranks}"
    return [holds("every run is the recipe's", not problems, told)]


def memory(scope: Scope) -> list[Check]:
    """What a step holds, predicted beside the allocator's own peak: both systems, ZeRO 0 to 3."""
    checks, peaks = [], dict[tuple[str, int], int]()
    for name in ("base",) if scope.is_toy else ("base", "base-bert"):
        for stage in (1,) if scope.is_toy else (0, 1, 2, 3):
            mechanics = shipped(stage, "bf16")
            sizes = (*TOY, *TOY_BATCH) if scope.is_toy else ("data.seq_len=512", *SMALL_BATCH)
            config = load_recipe(name, [*sizes, f"train.ds_config={mechanics}", "model.init=normal"])
            system = System(name, config, 30_000 if not scope.is_toy else 97)
            predicted, measured = predict(system).largest / 2**30, measure(system)
            peaks[name, stage] = measured.largest
            off = predicted * 2**30 / measured.largest - 1
            got = f"{predicted:.3f} GiB predicted, {measured.largest / 2**30:.3f} measured ({off:+.1%}, {measured.device})"
            checks.append(Check(f"{name}, ZeRO {stage}", got, "within 10%", abs(off) <= 0.10 if not scope.is_toy else None))
    if not scope.is_toy:
        checks += [at_most(f"SIBERT / BERT, ZeRO {s}", peaks["base", s] / peaks["base-bert", s], 0.75) for s in (0, 1, 2, 3)]
    return checks


def _pretrain(
    scope: Scope,
    run: str,
    recipe: str,
    *settings: str,
    steps: int,
    ranks: int = 1,
    timeout_s: float = 1800,
    until: Callable[[], bool] | None = None,
) -> Path:
    folder = scope.out / "runs" / run
    rhythm = (f"train.steps={steps}", "train.log_every_steps=1", f"train.eval_every_steps={steps}", "train.eval_sequences=32")
    options = [word for setting in (*settings, *rhythm) for word in ("--set", setting)]
    words = ("pipeline", "pretrain", "--recipe", recipe, "--data", scope.corpus(), "--run-dir", folder, *options)
    scope.program(*words, ranks=ranks, timeout_s=timeout_s, until=until)
    return folder


def _losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run / METRICS)[0]]


def resume(scope: Scope) -> list[Check]:
    """Killed after its first checkpoint and started again, a run ends with the bits of one that was left alone."""
    settings = (*TOY, *TOY_BATCH) if scope.is_toy else ()
    each, steps = (3, 9) if scope.is_toy else (20, 60)
    settings = (*settings, f"train.checkpoint_every_steps={each}", "train.ds_config=zero1-bf16")
    whole = _pretrain(scope, "undisturbed", "tiny", *settings, steps=steps)
    killed = scope.out / "runs" / "killed"

    def has_saved() -> bool:
        return bool(step_directories(killed))

    _pretrain(scope, "killed", "tiny", *settings, steps=steps, until=has_saved)
    was_killed = not (killed / "summary.json").exists()
    _pretrain(scope, "killed", "tiny", *settings, steps=steps)
    found, expected = (_trained_bits(run) for run in (killed, whole))
    return [
        Check("it was killed before its end", "yes" if was_killed else "no", "yes", was_killed or None),
        holds("losses and norms of every step", found[0] == expected[0]),
        holds("weights, moments and generators, byte for byte", found[1] == expected[1]),
    ]


def _trained_bits(run: Path) -> tuple[object, object]:
    rows = [{k: v for k, v in row.items() if k not in TIMES} for part in read_metrics(run / METRICS) for row in part]
    return rows, [path.read_bytes() for path in sorted(step_directories(run)[0].glob("*.safetensors"))]


def losses(scope: Scope) -> list[Check]:
    """`base` for 200 steps in bf16 beside fp32: the same samples, nearly the same losses."""
    steps = 6 if scope.is_toy else 200
    settings = (*TOY, *TOY_BATCH) if scope.is_toy else ("data.seq_len=512", *SMALL_BATCH)
    runs = {name: _pretrain(scope, f"losses-{name}", "base", *settings, f"train.ds_config={name}", steps=steps, timeout_s=3000)
            for name in ("zero1", "zero1-bf16")}  # fmt: skip
    fp32, bf16 = (_losses(run) for run in runs.values())
    apart = max(abs(a - b) for a, b in zip(fp32, bf16, strict=True))
    told = ", ".join(
        f"{step}: {fp32[step - 1]:.3f} / {bf16[step - 1]:.3f}" for step in range(steps // 4, steps + 1, steps // 4)
    )
    return [
        Check("losses at steps, fp32 / bf16", told),
        at_most("largest difference of a step, nats", apart, 0.2),
        at_most("difference at the end, nats", abs(statistics.fmean(fp32[-5:]) - statistics.fmean(bf16[-5:])), 0.05),
        holds("the loss has fallen", bf16[-1] < bf16[0], f"{bf16[0]:.3f} to {bf16[-1]:.3f}"),
    ]


def throughput(scope: Scope) -> list[Check]:
    """Tokens a second of the real step beside transformers' classes, and MFU."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise LeftOut("transformers is not installed: pip install -r benchmarks/requirements.txt") from None
    file = scope.out / "training_step.json"
    plan = (("toy", "fp32", 32, 1),) if scope.is_toy else (
        ("mini", "bf16", 16_384, 20), ("base", "fp32", 8_192, 5), ("base", "bf16", 16_384, 10),
        ("base-512", "bf16", 16_384, 10), ("large", "bf16", 16_384, 7),
    )  # fmt: skip
    checks = []
    for size, precision, tokens, rounds in plan:
        options = ("--sizes", size, "--precisions", precision, "--tokens", str(tokens), "--rounds", str(rounds))
        scope.program("benchmarks.training_step", *options, "--json-file", file)
        (row,) = json.loads(file.read_text(encoding="utf-8"))
        ours_s, name = row["seconds"]["ours"], f"{size}, {precision}, {row['tokens']} tokens"
        checks.append(Check(f"{name}: tokens/s", f"{row['tokens'] / ours_s:,.0f} ({row['attention']})"))
        checks.append(Check(f"{name}: time / floor", f"{ours_s / row['floor_s']:.2f}"))
        ratio = row["seconds"]["BERT"] / ours_s
        checks.append(Check(name, f"{ratio:.2f}", "1 at least") if scope.is_toy else at_least(f"{name}: / BERT", ratio, 1.0))
        if row["mfu"] is not None:
            limit = 0.5 if size == "large" else 0.0
            checks.append(at_least(f"{name}: MFU", row["mfu"], limit))
    return checks


def all_gpus(scope: Scope) -> list[Check]:
    """NCCL: every GPU of the machine trains what one trains."""
    ranks = 2 if scope.is_toy else scope.gpus
    if ranks < 2:
        raise LeftOut("one GPU: nothing to communicate with")
    power = 1 << (ranks.bit_length() - 1)  # a global batch that all share evenly
    steps, settings = (
        (4, (*TOY, *TOY_BATCH)) if scope.is_toy else (20, ("batch.global_sequences=256", "batch.micro_sequences=8"))
    )
    checks = []
    for mechanics in ("zero1-bf16",) if scope.is_toy else ("zero0-bf16", "zero1-bf16", "zero2-bf16", "zero3-bf16"):
        of_one, of_all = (
            _losses(
                _pretrain(scope, f"{mechanics}-{n}", "small", *settings, f"train.ds_config={mechanics}", ranks=n, steps=steps)
            )
            for n in (1, power)
        )
        apart = max(abs(a - b) for a, b in zip(of_one, of_all, strict=True))
        checks.append(at_most(f"{mechanics}, {power} ranks beside 1: largest difference of a loss", apart, 0.05))
    return checks


def finetune_and_export(scope: Scope) -> list[Check]:
    """One batch of MNLI on the run that was resumed, and its export read by transformers."""
    run = scope.out / "runs" / "undisturbed"
    if not run.exists():
        resume(scope)
    data = scope.out / "mnli"
    data.mkdir(exist_ok=True)
    for split, count in (("train", 16), ("dev_matched", 4), ("dev_mismatched", 4)):
        rows = [
            {"gold_label": label, "sentence1": f"The list has {number} names.", "sentence2": f"It is {label}."}
            for number, label in zip(range(count), ("entailment", "neutral", "contradiction") * count, strict=False)
        ]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sizes = ("data.seq_len=32", "task.epochs=1", "batch.global_sequences=16", "batch.micro_sequences=16")
    options = [word for setting in sizes for word in ("--set", setting)]
    tuned, exported = scope.out / "tuned", scope.out / "exported"
    scope.program("pipeline", "finetune", "--task", "mnli", "--run", run, "--data", data, "--out", tuned, *options)
    results = json.loads((tuned / "mnli" / "seed-0" / "results.json").read_text(encoding="utf-8"))
    if not exported.exists():
        scope.program("pipeline", "export", "--run", run, "--out", exported)
    checks = [holds("fine-tuning of one batch has results", "figures" in results)]
    try:
        from transformers import AutoModelForMaskedLM
    except ImportError:
        return [*checks, Check("export read by transformers", "not installed")]
    model = AutoModelForMaskedLM.from_pretrained(exported, trust_remote_code=True).to(scope.device)
    logits = model(input_ids=torch.randint(5, 100, (2, 16), device=scope.device)).logits
    return [*checks, holds("the export's logits are numbers", bool(logits.isfinite().all()))]
