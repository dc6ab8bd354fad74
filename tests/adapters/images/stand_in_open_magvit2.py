"""Stand-ins for LFQ of Open-MAGVIT2 and GFQ of WeTok, written after what they take, return and are called."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class LossBreakdown(NamedTuple):
    """The parts of the loss."""

    per_sample_entropy: Tensor
    codebook_entropy: Tensor
    commitment: Tensor
    avg_probs: Tensor


def entropies(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The mean entropy of rows [..., K], and the entropy of their mean, in nats."""
    information = -(logits / 0.01).log_softmax(-1)
    assigned = (-information).exp()
    shares = assigned.flatten(0, -2).mean(0)
    return (assigned * information).sum(-1).mean(), -(shares * (shares + 1e-5).log()).sum()


class LFQ(nn.Module):
    """x [B, D, ...] → (quantized, entropy loss [], indices [B · ... · num_codebooks]), and a LossBreakdown."""

    codebook: Tensor
    zero: Tensor
    mask: Tensor

    def __init__(
        self,
        *,
        dim: int,
        codebook_size: int,
        num_codebooks: int = 1,
        sample_minimization_weight: float = 1.0,
        batch_maximization_weight: float = 1.0,
        token_factorization: bool = False,
        factorized_bits: Sequence[int] = (9, 9),
    ) -> None:
        super().__init__()
        self.dim, self.codebook_size, self.num_codebooks = dim, codebook_size, num_codebooks
        self.codebook_dim = codebook_size.bit_length() - 1
        self.has_projections = dim != self.codebook_dim * num_codebooks
        self.sample_minimization_weight = sample_minimization_weight
        self.batch_maximization_weight = batch_maximization_weight
        self.token_factorization, self.factorized_bits = token_factorization, factorized_bits
        self.register_buffer("zero", torch.tensor(0.0), persistent=False)
        codes = self._signs(torch.arange(codebook_size), self.codebook_dim)
        self.register_buffer("codebook", codes, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        return self.codebook.dtype

    def indices_to_bits(self, x: Tensor) -> Tensor:
        return self._signs(x, self.codebook_dim) > 0

    def bits_to_indices(self, bits: Tensor) -> Tensor:
        return (bits.long() << torch.arange(bits.shape[-1])).sum(-1)

    def _signs(self, x: Tensor, bits: int) -> Tensor:
        return ((x[..., None] >> torch.arange(bits)) & 1) * 2.0 - 1

    def get_codebook_entry(self, x: Tensor, bhwc: Sequence[int], order: str) -> Tensor:
        return self._signs(x, self.codebook_dim).view(*bhwc).movedim(-1, 1)

    def decode(self, x: Tensor) -> Tensor:
        return self._signs(x, self.codebook_dim).flatten(-2)

    def forward(
        self,
        x: Tensor,
        inv_temperature: float = 100.0,
        return_loss_breakdown: bool = False,
        mask: Tensor | None = None,
        return_loss: bool = True,
    ) -> Any:
        vectors = x.movedim(1, -1)
        parts = vectors.unflatten(-1, (self.num_codebooks, self.codebook_dim))
        signs = torch.where(parts > 0, 1.0, -1.0)
        per_vector = of_batch = loss = commitment = self.zero
        if self.training:
            commitment = functional.mse_loss(parts, signs)
        if self.training and return_loss:
            per_vector, of_batch = entropies(2 * parts @ self.codebook.t())
            loss = self.sample_minimization_weight * per_vector - self.batch_maximization_weight * of_batch
        quantized = (parts + (signs - parts).detach()).flatten(-2).movedim(-1, 1)
        output = (quantized, loss, self._returned(signs))
        return (
            (output, LossBreakdown(per_vector, of_batch, commitment, self.zero))
            if return_loss_breakdown
            else output
        )

    def _returned(self, signs: Tensor) -> Tensor | list[Tensor]:
        return self.bits_to_indices(signs > 0).flatten()


class GFQ(LFQ):
    """With `token_factorization` indices are a list, with a tensor for each codebook."""

    def get_codebook_entry(  # type: ignore[override]
        self, x: Tensor, bhwc: Sequence[int], index_order: int
    ) -> Tensor:
        bits = self.factorized_bits[index_order] if self.token_factorization else self.codebook_dim
        return self._signs(x, bits).view(*bhwc).movedim(-1, 1)

    def _returned(self, signs: Tensor) -> Tensor | list[Tensor]:
        if not self.token_factorization:
            return super()._returned(signs)
        parts = signs.flatten(-2).split(list(self.factorized_bits), -1)
        return [self.bits_to_indices(part > 0).flatten() for part in parts]
