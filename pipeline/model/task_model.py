"""The model that is fine-tuned: the pretrained encoder with a task's head, and the loss.

Shapes: B sequences, L tokens, P predictions a sequence (1 class, or 2 places), N = B·P, C classes.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from pipeline.config.schema import RunConfig
from pipeline.data.batch import Batch
from pipeline.model.dropout import number_sites
from pipeline.model.encoder import Encoder
from pipeline.model.task_heads import ClassHead, SpanHead


class TaskLoss(NamedTuple):
    """`loss`, the mean over the B·P predictions, is what is differentiated; the rest is detached. A tuple, as DeepSpeed wants
    it (`PretrainingLoss` says why)."""

    loss: Tensor
    token_loss_N: Tensor
    logits: Tensor  # float32 at least: [B, C], or [B, 2, L] with -inf on padding


class TaskModel(nn.Module):
    """Encoder + head of `config.task`. `scale_invariant_names` says which parameters x of f(cx) = f(x) are."""

    def __init__(self, config: RunConfig, vocab_size: int, classes: int) -> None:
        super().__init__()
        self.encoder = Encoder(config.model, vocab_size)
        self.encoder.use_mechanics(config)
        self.head_is_invariant = config.task.head == "invariant"
        self.head: ClassHead | SpanHead = (
            ClassHead(config.model, classes, self.head_is_invariant)
            if config.task.name == "mnli"
            else SpanHead(config.model, self.head_is_invariant)
        )
        self.encoder_is_invariant = config.model.encoder != "bert"
        number_sites(self)

    def scale_invariant_names(self) -> set[str]:
        """Names of the scale invariant parameters: the encoder's, and the head's if that is invariant."""
        if not self.encoder_is_invariant:
            return set()
        parts = ("encoder.", "head.") if self.head_is_invariant else ("encoder.",)
        return {name for name, _ in self.named_parameters() if name.startswith(parts)}

    def forward(self, batch: Batch) -> TaskLoss:
        """Loss and logits of one micro batch."""
        keys_B = batch.dropout_keys
        hidden_BLD = self.encoder(batch.input_ids, batch.token_type_ids, batch.attention_mask, keys_B)
        logits = self.head(hidden_BLD, keys_B)
        if isinstance(self.head, SpanHead) and batch.attention_mask is not None:
            logits = logits.masked_fill(batch.attention_mask[:, None, :] == 0, float("-inf"))
        token_loss_N = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), batch.labels.flatten(), reduction="none")
        token_loss_N = token_loss_N * batch.weights.flatten()
        return TaskLoss(token_loss_N.mean(), token_loss_N.detach(), logits.detach())
