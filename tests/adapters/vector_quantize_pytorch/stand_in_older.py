"""Stand-ins for VectorQuantize and ResidualVQ of versions from 2023, and LeRobot's copy of the second.

They are written after what these compute, take and return, as far as VQ-BeT and the contracts use it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class EuclideanCodebook(nn.Module):
    """x [N, dim] → codes and indices; in training moving averages follow."""

    def __init__(self, dim: int, codebook_size: int, decay: float, eps: float, learnable_codebook: bool) -> None:
        super().__init__()
        self.decay, self.eps, self.ema_update = decay, eps, not learnable_codebook
        self.learnable_codebook, self.threshold_ema_dead_code, self.affine_param = learnable_codebook, 0, False
        embed = torch.randn(1, codebook_size, dim)
        self.register_buffer("initted", torch.tensor([1.0]))
        self.register_buffer("cluster_size", torch.zeros(1, codebook_size))
        self.register_buffer("embed_avg", embed.clone())
        if learnable_codebook:
            self.embed = nn.Parameter(embed)
        else:
            self.register_buffer("embed", embed)

    def transform(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor, freeze_codebook: bool) -> tuple[Tensor, Tensor]:
        indices = torch.cdist(x, self.embed[0]).argmin(-1)
        codes = self.embed[0][indices]
        if self.training and self.ema_update and not freeze_codebook:
            self._move(x.detach(), functional.one_hot(indices, self.embed.shape[1]).float())
        return codes, indices

    @torch.no_grad()
    def _move(self, x: Tensor, one_hot: Tensor) -> None:
        self.cluster_size.lerp_(one_hot.sum(0)[None], 1 - self.decay)
        self.embed_avg.lerp_((one_hot.T @ x)[None], 1 - self.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.eps) / (total + self.embed.shape[1] * self.eps) * total
        self.embed.copy_(self.transform(self.embed_avg / smoothed[..., None]))


class CosineSimCodebook(EuclideanCodebook):
    """The same on the unit sphere."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.embed.copy_(functional.normalize(self.embed, dim=-1))
        self.embed_avg.copy_(self.embed)

    def transform(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=-1)


class VectorQuantize(nn.Module):
    """x [B, N, dim] → (quantized, indices [B, N], loss [1]), which is zero in evaluation."""

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        codebook_dim: int | None = None,
        decay: float = 0.8,
        eps: float = 1e-5,
        commitment_weight: float = 1.0,
        use_cosine_sim: bool = False,
        learnable_codebook: bool = False,
    ) -> None:
        super().__init__()
        width = codebook_dim or dim
        self.dim, self.codebook_size, self.commitment_weight = dim, codebook_size, commitment_weight
        self.heads, self.separate_codebook_per_head = 1, False
        self.project_in = nn.Identity() if width == dim else nn.Linear(dim, width)
        self.project_out = nn.Identity() if width == dim else nn.Linear(width, dim)
        self.orthogonal_reg_weight, self.channel_last, self.accept_image_fmap = 0.0, True, False
        self.learnable_codebook = learnable_codebook
        state = CosineSimCodebook if use_cosine_sim else EuclideanCodebook
        self._codebook = state(width, codebook_size, decay, eps, learnable_codebook)

    @property
    def codebook(self) -> Tensor:
        return self._codebook.embed[0]

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        return self.codebook[indices]

    def forward(
        self, x: Tensor, indices: None = None, mask: Tensor | None = None, freeze_codebook: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        vectors = self._codebook.transform(self.project_in(x))
        codes, found = self._codebook(vectors.flatten(0, 1), freeze_codebook)
        codes = codes.view(vectors.shape)
        loss = torch.zeros(1)
        if self.training:
            to_codes = codes if self.learnable_codebook else codes.detach()
            loss = loss + self.commitment_weight * functional.mse_loss(to_codes, vectors)
            codes = vectors + (codes - vectors).detach()
        quantized = self.project_out(codes)
        quantized = quantized if mask is None else quantized.where(mask[..., None], x)
        return quantized, found.view(x.shape[:-1]), loss


class ResidualVQ(nn.Module):
    """x [B, N, dim] → (quantized, indices [B, N, q], losses [1, q])."""

    def __init__(
        self,
        dim: int,
        num_quantizers: int,
        codebook_dim: int | None = None,
        shared_codebook: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        width = codebook_dim or dim
        self.project_in = nn.Identity() if width == dim else nn.Linear(dim, width)
        self.project_out = nn.Identity() if width == dim else nn.Linear(width, dim)
        self.num_quantizers, self.quantize_dropout, self.accept_image_fmap = num_quantizers, False, False
        self.layers = nn.ModuleList([VectorQuantize(width, **options) for _ in range(num_quantizers)])
        if shared_codebook:
            for layer in self.layers:
                layer._codebook = self.layers[0]._codebook

    @property
    def codebooks(self) -> Tensor:
        return torch.stack([layer.codebook for layer in self.layers])

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        pairs = zip(self.layers, indices.unbind(-1), strict=True)
        return torch.stack([layer.codebook[own] for layer, own in pairs])

    def draw_logits_forward(self, encoding_logits: Tensor) -> Tensor:
        pairs = zip(encoding_logits.unbind(1), self.codebooks, strict=True)
        return torch.stack([logits @ codes for logits, codes in pairs]).sum(0)

    def forward(
        self, x: Tensor, indices: None = None, return_all_codes: bool = False, freeze_codebook: bool = False
    ) -> tuple[Tensor, ...]:
        residual, total, results = self.project_in(x), 0.0, []
        for layer in self.layers:
            quantized, *others = layer(residual, freeze_codebook=freeze_codebook)
            residual, total = residual - quantized.detach(), total + quantized
            results.append(others)
        found, losses = (torch.stack(parts, -1) for parts in zip(*results, strict=True))
        codes = [self.get_codes_from_indices(found)] if return_all_codes else []
        return self.project_out(total), found, losses, *codes


class LeRobotResidualVQ(ResidualVQ):
    """LeRobot's: another name for the lookup, and a buffer by which codes are frozen."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_buffer("freeze_codebook", torch.tensor(False))

    def get_codebook_vector_from_indices(self, indices: Tensor) -> Tensor:
        return super().get_codes_from_indices(indices)

    def forward(self, x: Tensor, indices: None = None, return_all_codes: bool = False) -> tuple[Tensor, ...]:
        return super().forward(x, indices, return_all_codes, bool(self.freeze_codebook))


LeRobotResidualVQ.__name__ = "ResidualVQ"
