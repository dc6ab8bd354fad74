"""A stand-in for IndexPropagationQuantize, written after what it takes, returns and is called."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class IndexPropagationQuantize(nn.Module):
    """z [B, C, H, W] → (z_q [B, C, H, W], loss [] or four losses, (None, None, indices [B·H·W])).

    Args: of_emu: as Emu3.5's version, which has no loss in evaluation; else as SEED-Voken's.
    """

    def __init__(
        self, n_e: int, e_dim: int, beta: float = 0.25, use_entropy_loss: bool = False, of_emu: bool = False
    ) -> None:
        super().__init__()
        self.n_e, self.e_dim, self.beta, self.use_entropy_loss = n_e, e_dim, beta, use_entropy_loss
        self.remap, self.re_embed = None, n_e
        self.embedding = nn.Embedding(n_e, e_dim)
        if of_emu:
            self.l2_normalize = False

    def forward(
        self, z: Tensor, temp: float | None = None, return_logits: bool = False
    ) -> tuple[Tensor, Any, tuple[None, None, Tensor]]:
        vectors, table = z.movedim(1, -1), self.embedding.weight
        logits = vectors @ table.t()
        soft = logits.softmax(-1)
        indices = logits.argmax(-1)
        hard = functional.one_hot(indices, self.n_e).to(soft)
        quantized, codes = (hard + soft - soft.detach()) @ table, hard @ table
        loss = (
            (quantized - vectors).square().mean()
            + (codes.detach() - vectors).square().mean()
            + self.beta * (codes - vectors.detach()).square().mean()
        )
        return quantized.movedim(-1, 1), self._losses(loss, logits), (None, None, indices.flatten())

    def _losses(self, loss: Tensor, logits: Tensor) -> Any:
        if self.use_entropy_loss:
            assigned = (logits / 0.01).softmax(-1).flatten(0, -2)
            per_vector = torch.special.entr(assigned).sum(-1).mean()
            of_batch = torch.special.entr(assigned.mean(0)).sum()
            return loss, per_vector, of_batch, per_vector - of_batch
        return 0.0 if hasattr(self, "l2_normalize") and not self.training else loss

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        codes = self.embedding(indices)
        return codes if shape is None else codes.view(shape).movedim(-1, 1)
