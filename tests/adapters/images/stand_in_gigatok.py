"""Stand-ins for two quantizers of GigaTok, written after what they take, return and are called."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.adapters.images import stand_in_llamagen


class VectorQuantizer(stand_in_llamagen.VectorQuantizer):
    """LlamaGen's, with losses in a list, and options for the gradient, the choice and the codes."""

    def __init__(
        self,
        n_e: int,
        e_dim: int,
        beta: float,
        entropy_loss_ratio: float,
        l2_norm: bool,
        show_usage: bool,
        rot: bool = False,
        stochastic: bool = False,
        stochastic_temperature: float = 1.0,
        eval_deterministic: bool = False,
        simvq: bool = False,
    ) -> None:
        super().__init__(n_e, e_dim, beta, entropy_loss_ratio, l2_norm, show_usage)
        self.rot, self.stochastic, self.eval_deterministic, self.simvq = rot, stochastic, eval_deterministic, simvq
        self.stochastic_temperature_inv = 1 / stochastic_temperature
        self.codebook_transform = nn.Linear(e_dim, e_dim, bias=False) if simvq else None

    def get_emb(self) -> Tensor:
        table = self.embedding.weight
        return table if self.codebook_transform is None else self.codebook_transform(table)

    @staticmethod
    def get_very_efficient_rotation(u: Tensor, q: Tensor, e: Tensor) -> Tensor:
        """e [N, D], turned as u turns into q, both of norm one; only e gets a gradient."""
        w, u, q = (vectors.detach() for vectors in (functional.normalize(u + q, dim=-1), u, q))
        return e - 2 * (e * w).sum(-1, keepdim=True) * w + 2 * (e * u).sum(-1, keepdim=True) * q

    def _codes(self) -> Tensor:
        return self._scaled(self.get_emb())

    def _straight_through(self, vectors: Tensor, codes: Tensor) -> Tensor:
        if not self.rot:
            return super()._straight_through(vectors, codes)
        units = functional.normalize(vectors, dim=-1)
        length = codes.norm(dim=-1, keepdim=True)
        return self.get_very_efficient_rotation(units, codes / length, units) * length.detach()

    def forward(  # type: ignore[override]
        self, z: Tensor, random_replace: bool = False, replace_ratio: float = 0.1
    ) -> tuple[Tensor, list[Any], tuple[None, None, Tensor]]:
        quantized, losses, info = super().forward(z)
        if random_replace and self.training:
            replaced = torch.rand(len(z), 1, *z.shape[2:]) < replace_ratio
            quantized = torch.where(replaced, self._scaled(z.movedim(1, -1)).movedim(-1, 1), quantized)
        return quantized, list(losses), info


class FSQ(nn.Module):
    """z [B, dim, ...], or [B, N, dim] without channel_first → (quantized, indices, codebook_usage)."""

    _levels: Tensor
    codebook_used: Tensor
    implicit_codebook: Tensor

    def __init__(self, levels: Sequence[int], dim: int | None = None, channel_first: bool = False) -> None:
        super().__init__()
        self.register_buffer("_levels", torch.tensor(levels, dtype=torch.int32), persistent=False)
        weights = [math.prod(levels[:position]) for position in range(len(levels))]
        self.register_buffer("_basis", torch.tensor(weights, dtype=torch.int32), persistent=False)
        self.codebook_size, self.codebook_dim, self.num_codebooks = math.prod(levels), len(levels), 1
        self.dim, self.channel_first, self.keep_num_codebooks_dim = dim or len(levels), channel_first, False
        self.show_usage = self.return_indices = True
        self.has_projections = self.dim != self.codebook_dim
        agree = not self.has_projections
        self.project_in = nn.Identity() if agree else nn.Linear(self.dim, self.codebook_dim)
        self.project_out = nn.Identity() if agree else nn.Linear(self.codebook_dim, self.dim)
        self.register_buffer("codebook_used", torch.zeros(4 * self.codebook_size))
        codes = self._indices_to_codes(torch.arange(self.codebook_size))
        self.register_buffer("implicit_codebook", codes, persistent=False)

    def _indices_to_codes(self, indices: Tensor) -> Tensor:
        return self.indices_to_level_indices(indices) / (self._levels // 2) - 1

    def bound(self, z: Tensor, eps: float = 1e-3) -> Tensor:
        half = (self._levels - 1) * (1 + eps) / 2
        offset = 0.5 * (self._levels % 2 == 0)
        return half * (z + (offset / half).atanh()).tanh() - offset

    def quantize(self, z: Tensor) -> Tensor:
        bounded = self.bound(z)
        return (bounded + (bounded.round() - bounded).detach()) / (self._levels // 2)

    def codes_to_indices(self, codes: Tensor) -> Tensor:
        levels = ((codes + 1) * (self._levels // 2)).round().long()
        return (levels * self._basis).sum(-1)

    def indices_to_level_indices(self, indices: Tensor) -> Tensor:
        return indices[..., None] // self._basis % self._levels

    def level_indices_to_indices(self, level_indices: Tensor) -> Tensor:
        return (level_indices * self._basis).sum(-1)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        codes = self.project_out(self._indices_to_codes(indices))
        return codes.movedim(-1, 1) if indices.ndim >= 3 or self.channel_first else codes

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, float]:
        moves = z.ndim >= 4 or self.channel_first
        codes = self.quantize(self.project_in(z.movedim(1, -1) if moves else z))
        indices = self.codes_to_indices(codes)
        self.codebook_used = torch.cat([self.codebook_used, indices.flatten()])[-4 * self.codebook_size :]
        usage = len(self.codebook_used.unique()) / self.codebook_size
        out = self.project_out(codes)
        return out.movedim(-1, 1) if moves else out, indices, usage
