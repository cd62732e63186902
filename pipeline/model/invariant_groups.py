"""Which tensors are scale invariant by themselves."""

from torch import Tensor, nn

from pipeline.model.embedding import Embedding


def separately_invariant_groups(model: nn.Module) -> list[list[Tensor]]:
    """The tensors of sibert-d with a row-normalised decoder, grouped so that the loss is invariant under scaling any one group:
    every linear's weight with its bias, every decoder alone, and the embeddings together, or where they are row-normalised
    each alone (there every row is invariant by itself, but one multiplier keeps the lengths of the rows beside each other)."""
    embeddings: list[list[Tensor]] = [[m.weight] for m in model.modules() if isinstance(m, nn.Embedding)]
    if not any(isinstance(m, Embedding) and m.normalised for m in model.modules()):
        embeddings = [[table for (table,) in embeddings]]
    linears: list[list[Tensor]] = [list(m.parameters()) for m in model.modules() if isinstance(m, nn.Linear)]
    return [*embeddings, *linears]
