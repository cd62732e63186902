"""A start from trained weights: every tensor as it is, and positions for longer sequences made of the trained ones.

BERT is trained at 128 tokens for nine tenths of its steps and at 512 for the last (Devlin et al. 2019, appendix A.2), so most
of its positions are untrained when the second phase begins. The rule here: row p of the position table, p at or beyond the T
rows that have been trained, is row p mod T. So Longformer extends RoBERTa's 512 positions (Beltagy et al. 2020, section 5):
heads have learned to look at near tokens, and copies keep every distance within a block, which stretching (interpolation)
changes everywhere; what is wrong at the borders of the blocks is learned quickly.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

POSITIONS = "encoder.embedding.position.weight"  # [rows, D]; a model with rotary positions has no such table


def check_shapes(stored: Mapping[str, list[int]], shapes: Mapping[str, list[int]], where: str) -> None:
    """ValueError naming the first parameter of a model (`shapes`) that the stored weights do not give, or the first stored one
    that the model lacks. A position table may have fewer rows than the model's."""
    for name in sorted(stored.keys() | shapes.keys()):
        there, here = stored.get(name), shapes.get(name)
        if there == here or (name == POSITIONS and there and here and there[1:] == here[1:] and there[0] < here[0]):
            continue
        raise ValueError(
            f"{where}: parameter {name} is {_said(there)} there, {_said(here)} here; a run starts from weights of a model "
            "like its own: the same model.* but for a larger max_seq_len, the same data.objective"
        )


def repeated_rows(rows_PD: Tensor, trained: int, length: int) -> Tensor:
    """A table of `length` rows: row p is row p mod `trained` of the given one."""
    return rows_PD[torch.arange(length) % trained]


@torch.no_grad()
def take_weights(model: nn.Module, stored: Callable[[str], Tensor], trained_positions: int, seq_len: int) -> None:
    """Give every parameter of the model the stored tensor of its name, in place.

    `trained_positions`: how many rows of the stored position table have been trained, T in the rule above. The rule is
    applied where it is needed: if the model has more rows than are stored, or reads more positions (`seq_len`) than have been
    trained; else the table is taken as it is.
    """
    for name, parameter in model.named_parameters():
        tensor = stored(name)
        if name == POSITIONS and (len(tensor) < len(parameter) or trained_positions < seq_len):
            tensor = repeated_rows(tensor, min(trained_positions, len(tensor)), len(parameter))
        parameter.copy_(tensor)


def _said(shape: list[int] | None) -> str:
    return "missing" if shape is None else str(shape)
