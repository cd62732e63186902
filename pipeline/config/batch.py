"""How a global batch is made of ranks, micro batches and accumulation."""

from dataclasses import dataclass

from pipeline.config.schema import BatchConfig


@dataclass(frozen=True)
class BatchArithmetic:
    """How the global batch is made of micro batches."""

    world_size: int
    micro_sequences: int
    accumulation_steps: int
    global_sequences: int


def batch_arithmetic(batch: BatchConfig, world_size: int) -> BatchArithmetic:
    """Accumulation = global / (micro × world size); ValueError with all four numbers and batches that would do."""
    if world_size < 1:
        raise ValueError(f"world size {world_size}: expected at least 1")
    per_step = batch.micro_sequences * world_size
    if batch.global_sequences % per_step:
        below = batch.global_sequences // per_step * per_step
        fits = " or ".join(str(b) for b in (below, below + per_step) if b)
        micros = [m for m in range(batch.micro_sequences, 0, -1) if batch.global_sequences % (m * world_size) == 0]
        remedy = f"batch.micro_sequences={micros[0]} or " if micros else ""
        raise ValueError(
            f"batch.global_sequences = {batch.global_sequences} is not divisible by batch.micro_sequences = "
            f"{batch.micro_sequences} x world size {world_size} = {per_step} (accumulation would be "
            f"{batch.global_sequences / per_step:.2f}); --set {remedy}batch.global_sequences={fits} would do"
        )
    return BatchArithmetic(world_size, batch.micro_sequences, batch.global_sequences // per_step, batch.global_sequences)
