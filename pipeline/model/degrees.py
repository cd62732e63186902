"""The degree of homogeneity of every operation of a model, derived from the modules it really has (paper section 3).

The rules stand beside the operations (`homogeneity` says how); here is the walk over them. What meets at a sum must have the
same degree: a parameter that breaks that is named. `invariance` measures what is derived here.
"""

from collections.abc import Sequence

from pipeline.model.homogeneity import Row
from pipeline.model.pretraining import PretrainingModel


def claimed_names(model: PretrainingModel) -> set[str]:
    """The parameters x that are scaled: those the model claims; of the baseline, which claims none, the encoder's."""
    return model.scale_invariant_names() or {name for name, _ in model.named_parameters() if name.startswith("encoder.")}


def degrees(model: PretrainingModel) -> list[Row]:
    """Every operation from the embedding to the heads with its degrees, in the order of the forward pass.

    A module or function that is not known is a problem in its row, and a claimed parameter whose module is in no row is one of
    its own; nothing is raised.
    """
    rows = model.encoder.degrees("encoder")
    end = rows[-1].degree_out
    rows += model.mlm_head.degrees("mlm_head", end)
    if model.nsp_head is not None:
        rows += model.nsp_head.degrees("nsp_head", end)
    return rows + _unaccounted(model, rows)


def _unaccounted(model: PretrainingModel, rows: Sequence[Row]) -> list[Row]:
    """A claimed parameter whose module is in no row was not walked."""
    walked = {row.name for row in rows}
    names = sorted(name for name in claimed_names(model) if name.rpartition(".")[0] not in walked)
    return [Row(name, "parameter", 0, 1, f"{name} is in no known operation: its degree is not known") for name in names]
