"""A stand-in for UniTok's quantizer, written after what it computes, its calls and its parameters."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class VectorQuantizer(nn.Module):
    """One codebook, on the unit sphere: [B, L, C] → (quantized, loss [], entropy loss, usage [])."""

    def __init__(
        self,
        vocab_size: int,
        vocab_width: int,
        beta: float = 0.25,
        use_entropy_loss: bool = False,
        entropy_temp: float = 0.01,
    ) -> None:
        super().__init__()
        self.vocab_size, self.vocab_width, self.beta = vocab_size, vocab_width, beta
        self.codebook = nn.Embedding(vocab_size, vocab_width)
        self.register_buffer("vocab_usage", torch.zeros(vocab_size))
        self.use_entropy_loss, self.inv_entropy_tau = use_entropy_loss, 1 / entropy_temp

    def codes(self, indices: Tensor) -> Tensor:
        return functional.normalize(self.codebook(indices), dim=-1)

    def f_to_idx(self, features: Tensor) -> Tensor:
        unit, table = functional.normalize(features, dim=-1), functional.normalize(self.codebook.weight, dim=-1)
        return (unit.float() @ table.mT).argmax(-1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor | float, Tensor]:
        unit, indices = functional.normalize(features, dim=-1), self.f_to_idx(features)
        codes = self.codes(indices)
        loss = self.beta * functional.mse_loss(codes.detach(), unit) + functional.mse_loss(codes, unit.detach())
        shares = indices.flatten().bincount(minlength=self.vocab_size) / indices.numel()
        self.vocab_usage.copy_(shares)  # in evaluation, too
        usage = 100 * (shares > 0.01 / self.vocab_size).float().mean()
        entropy = self._entropy_loss(unit) if self.use_entropy_loss else 0.0
        return unit + (codes - unit).detach(), loss, entropy, usage

    def _entropy_loss(self, unit: Tensor) -> Tensor:
        table = functional.normalize(self.codebook.weight, dim=-1)
        shares = (-self.inv_entropy_tau * torch.cdist(unit, table).square()).softmax(-1).flatten(0, 1)
        return torch.special.entr(shares).sum(-1).mean() - torch.special.entr(shares.mean(0)).sum()


class VectorQuantizerM(nn.Module):
    """A codebook for each group of channels; losses and usage are means over them."""

    def __init__(self, vocab_size: int, vocab_width: int, num_codebooks: int = 16, **options: Any) -> None:
        super().__init__()
        self.num_codebooks = num_codebooks
        sizes = vocab_size // num_codebooks, vocab_width // num_codebooks
        self.codebooks = nn.ModuleList([VectorQuantizer(*sizes, **options) for _ in range(num_codebooks)])

    def init_vocab(self, eini: float) -> None:
        for codebook in self.codebooks:
            nn.init.normal_(codebook.codebook.weight, std=eini)

    def f_to_idx(self, features: Tensor) -> Tensor:
        groups = features.chunk(self.num_codebooks, -1)
        return torch.stack([own.f_to_idx(x) for own, x in zip(self.codebooks, groups, strict=True)], 1)

    def idx_to_f(self, indices: Tensor) -> Tensor:
        columns = indices.flatten(2).unbind(1)
        return torch.cat([own.codes(column) for own, column in zip(self.codebooks, columns, strict=True)], -1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor | float, Tensor]:
        groups = features.chunk(self.num_codebooks, -1)
        outputs = [own(x) for own, x in zip(self.codebooks, groups, strict=True)]
        quantized, *others = zip(*outputs, strict=True)
        loss, entropy, usage = (sum(values) / self.num_codebooks for values in others)
        return torch.cat(quantized, -1), loss, entropy, usage
