"""The Triton kernels, compiled for GPUs that are not here."""

from pathlib import Path

import pytest
import torch

from tests.helpers.triton_modules import fresh_triton

FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16
MOST_SHARED_BYTES = 99 * 1024  # of a program, on the least of the GPUs since Ampere


@pytest.mark.parametrize(
    ("capability", "kind", "width", "power", "length"),
    [
        (90, BF16, 64, 2, 512),
        *(
            pytest.param(capability, kind, width, power, 500, marks=pytest.mark.long)
            for capability in (80, 90)
            for kind, width, power in (
                (BF16, 16, 1),
                (BF16, 96, 2),
                (BF16, 128, 3),
                (FP16, 48, 3),
                (FP32, 64, 2),
                (FP32, 128, 1),
            )
        ),
    ],
)
def test_the_kernels_compile_and_fit_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capability: int, kind: torch.dtype, width: int, power: int, length: int
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with fresh_triton(interpret=False) as triton_attention:
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource, compile

        kernels, blocks = triton_attention.kernels, triton_attention.blocks_of(width, kind)
        shape = torch.empty(1, 1, length, width, dtype=kind, device="meta")
        number = {FP32: "*fp32", BF16: "*bf16", FP16: "*fp16"}[kind]
        pointers = {**dict.fromkeys(("q", "k", "v", "grad", "out", "dq", "dk", "dv"), number), "key_exponents": "*i32"}
        pointers |= dict.fromkeys(("totals", "along", "scales"), "*fp32")
        for name in blocks._fields:
            kernel, options = getattr(kernels, name), triton_attention._options(shape, power, getattr(blocks, name))
            options["LIFT"] = 1.0
            launch = {key: options.pop(key) for key in ("num_warps", "num_stages")}
            constants = {key: value for key, value in options.items() if key in kernel.arg_names}
            kinds = {arg: "constexpr" if arg in constants else pointers.get(arg, "i32") for arg in kernel.arg_names}
            aligned = {
                (at,): [["tt.divisibility", 16]] for at, arg in enumerate(kernel.arg_names) if arg in pointers or "_" in arg
            }
            made = compile(ASTSource(kernel, kinds, constants, aligned), GPUTarget("cuda", capability, 32), launch)
            assert made.metadata.shared <= MOST_SHARED_BYTES, name
            assert "max.NaN.f32" in made.asm["ptx"], name  # ReLU hides nothing; the interpreter's never does
