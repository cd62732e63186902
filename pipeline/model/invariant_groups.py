"""Which tensors are scale invariant by themselves."""

from torch import Tensor, nn


def separately_invariant_groups(model: nn.Module) -> list[list[Tensor]]:
    """The tensors of sibert-d with the invariant head, grouped so that the loss is invariant under scaling any one group:
    the embeddings together, every linear's weight with its bias, every decoder alone."""
    embeddings: list[Tensor] = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    linears: list[list[Tensor]] = [list(m.parameters()) for m in model.modules() if isinstance(m, nn.Linear)]
    return [embeddings, *linears]
