"""Two sequences whose loss is stored with every checkpoint: what was loaded must give the same loss.

Hashes say that the bytes are the ones that were written; the probe says that they have become the same function again. It costs
nothing: the sequences are the first that rank 0 trains on after the save, whose forward pass is made with the saved weights.
"""

import torch
from torch import Tensor

from pipeline.checkpoint.reader import Checkpoint
from pipeline.data.batch import Batch
from pipeline.model.pretraining import PretrainingLoss, on_device
from pipeline.model.task_model import TaskLoss
from pipeline.optim.groups import Model

SEQUENCES = 2
# Relative. The same ranks and device differ by less than 1e-6; others by rounding: of sums, or of weights to bf16.
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}


def rows(batch: Batch) -> Batch:
    """The first SEQUENCES sequences of a micro batch, or all of a smaller one."""
    return batch.map(lambda tensor: tensor[:SEQUENCES])


def loss_of_rows(batch: Batch, out: PretrainingLoss | TaskLoss) -> Tensor:
    """Of `rows(batch)`, from the forward pass of the whole micro batch: a scalar, nats per prediction; no synchronisation."""
    probed = rows(batch).weights
    return out.token_loss_N[: probed.numel()].double().sum() / probed.double().sum().clamp(min=1)


@torch.no_grad()
def loss(model: Model, probe: Batch) -> float:
    """Of a probe of its own, alike; under ZeRO 3 every rank must ask."""
    on_model = probe.to(on_device(model))
    return float(loss_of_rows(on_model, model(on_model)))


def as_tensors(probe: Batch) -> dict[str, Tensor]:
    """For a safetensors file; `stored_batch` reads it. The format wants a mask of packed text, too: of ones."""
    ones = {"attention_mask": torch.ones(probe.input_ids.shape)} if probe.attention_mask is None else {}
    return {name: tensor.cpu().contiguous() for name, tensor in (probe.tensors() | ones).items()}


def stored_batch(found: Checkpoint) -> Batch:
    """The probe of a checkpoint."""
    tensors = dict(found.probe())
    if bool(tensors["attention_mask"].all()):  # packed text
        del tensors["attention_mask"]
    return Batch(**tensors)


def check(found: Checkpoint, loss_now: float, precision: str = "fp32") -> None:
    """ValueError if the loss on the stored batch of what was loaded, in this precision, is not the stored one."""
    stored, tolerance = found.manifest["probe"]["loss"], max(TOLERANCE[found.manifest["precision"]], TOLERANCE[precision])
    if not abs(loss_now - stored) <= tolerance * max(abs(stored), 0.1):  # a loss near 0 is all rounding
        raise ValueError(
            f"{found.directory}: its probe batch has a loss of {loss_now!r} now and had {stored!r} when it was saved: its "
            "bytes are right, so this is another function: compare versions in its manifest with what is installed here"
        )
