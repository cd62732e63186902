"""What one optimiser step costs beside torch's SGD, torch's fused AdamW, and the memory itself.

    python -m benchmarks.optimizer_step [--sizes 1e6 1e7 1e8] [--rounds 15]

Tensors have the shapes of SIBERT at three sizes: `tensors`, one tensor a parameter (ZeRO 0); `flat`, one partition that holds
them all, gradients side by side (ZeRO 1 and 3); `split`, the same in bf16 with split masters. All are timed in turn within one
run, and every figure is a ratio of medians, because machines are shared and noisy. The floor of a step in fp32 is the bytes
that it cannot avoid to move, at the bandwidth of a copy of the same size: 20 bytes a parameter (read x and g for the norms,
read both again and write x).
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.timing import medians_s
from pipeline.config.schema import ModelConfig, RunConfig
from pipeline.model.build import skeleton
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.partitions import Fragment, Partitions, replicated

SHAPES = {  # about so many parameters: layers, width, vocabulary
    1e6: (2, 128, 2048),
    1e7: (6, 320, 8192),
    1e8: (12, 768, 20000),
}
COPY_BYTES, STEP_BYTES = 8, 20
LAYOUTS = ("tensors", "flat", "split")


def model_tensors(size: float) -> list[Tensor]:
    """Random tensors of the shapes of a SIBERT of about this size."""
    layers, width, vocabulary = SHAPES[size]
    config = ModelConfig(encoder="sibert-d", head="invariant", layers=layers, width=width, heads=4, ffn_width=4 * width)
    shapes = [p.shape for p in skeleton(RunConfig(model=config), vocabulary).parameters()]
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def ours(values: list[Tensor], gradients: list[Tensor], layout: str) -> Callable[[], None]:
    """One step of the product's optimiser: norms, decision, update."""
    rule = {"name": "x", "rule": "sgd", "clip_set": "x", "lr": 1e-3, "weight_decay": 1e-3, "clip_c": 2.0}
    names = [str(i) for i in range(len(values))]
    if layout == "tensors":
        params = [nn.Parameter(v.clone()) for v in values]
        optimizer = PretrainingOptimizer([{**rule, "names": names, "params": params}])
        partitions = replicated(list(zip(names, params, strict=True)), optimizer.all_groups)
        for p, g in zip(params, gradients, strict=True):
            p.grad = g.clone()
    else:
        low = torch.bfloat16 if layout == "split" else torch.float32
        whole = nn.Parameter(torch.cat([v.flatten() for v in values]).to(low))
        whole.grad = torch.cat([g.flatten() for g in gradients]).to(low)
        optimizer = PretrainingOptimizer([{**rule, "names": names, "params": [whole]}])
        if layout == "split":
            optimizer.remainders[whole] = torch.zeros_like(whole, dtype=torch.int16)
        fragments, start, rest = [], 0, optimizer.remainders.get(whole)
        for name, g in zip(names, gradients, strict=True):  # gradients side by side, as ZeRO 1 and 3 keep them
            piece = whole.grad[start : start + g.numel()]
            fragments.append(Fragment(name, 0, 0, g.numel(), whole, start, piece.detach, rest))
            start += g.numel()
        partitions = Partitions(tuple(fragments), None, 1, whole.device)
    optimizer.attach(partitions)

    def step() -> None:
        optimizer.prepare()
        optimizer.step()
        optimizer.finish()

    return step


def theirs(
    optimizer: type[torch.optim.Optimizer], values: list[Tensor], gradients: list[Tensor], **settings: object
) -> Callable:
    """One step of a torch optimiser."""
    params = [nn.Parameter(v.clone()) for v in values]
    for p, g in zip(params, gradients, strict=True):
        p.grad = g.clone()
    return optimizer(params, lr=1e-3, weight_decay=1e-3, **settings).step  # type: ignore[call-arg]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", choices=sorted(SHAPES), default=sorted(SHAPES), metavar="N")
    parser.add_argument("--rounds", type=int, default=15, help="timed turns of each candidate")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; times are divided by what stands in the heading\n")
    print(f"{'parameters':>12}{'layout':>9}{'/ floor':>9}{'/ SGD':>8}{'/ fused SGD':>13}{'/ fused AdamW':>15}{'copy GB/s':>11}")
    for size in args.sizes:
        values = model_tensors(size)
        gradients = [torch.randn_like(v) * 1e-3 for v in values]
        total = sum(v.numel() for v in values)
        source, target = torch.randn(total), torch.empty(total)
        seconds = medians_s(
            {
                "copy": lambda source=source, target=target: target.copy_(source),
                **{layout: ours(values, gradients, layout) for layout in LAYOUTS},
                "SGD": theirs(torch.optim.SGD, values, gradients),
                "fused SGD": theirs(torch.optim.SGD, values, gradients, fused=True),
                "fused AdamW": theirs(torch.optim.AdamW, values, gradients, fused=True),
            },
            max(args.rounds, int(args.rounds * min(10, 1e7 / total))),
        )
        floor_s = seconds["copy"] * STEP_BYTES / COPY_BYTES
        for layout in LAYOUTS:
            ratios = [seconds[layout] / t for t in (floor_s, seconds["SGD"], seconds["fused SGD"], seconds["fused AdamW"])]
            cells = "".join(f"{ratio:>{width}.2f}" for ratio, width in zip(ratios, (9, 8, 13, 15), strict=True))
            print(f"{total:>12,}{layout:>9}{cells}{COPY_BYTES * total / seconds['copy'] / 1e9:>11.1f}")


if __name__ == "__main__":
    main()
