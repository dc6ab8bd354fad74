"""Stand-ins for four classes called FactorizedVectorQuantize, written after what they compute and return.

All search on normalised vectors and codes, with codes as they are, straight-through, and with losses that are a
mean for each sample and zero in evaluation. They differ in the kind of their projections and in their results.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

Norm = Callable[[nn.Module], nn.Module]


class _Factorized(nn.Module):
    """z [B, D, T] is projected to [B, d, T] and back."""

    projections: tuple[str, str]
    normalizes = True
    codebook_loss_weight = 1.0

    def __init__(
        self,
        input_dim: int,
        codebook_size: int,
        codebook_dim: int,
        commitment: float,
        norm: Norm = parametrizations.weight_norm,
    ) -> None:
        super().__init__()
        self.codebook_size, self.codebook_dim, self.commitment = codebook_size, codebook_dim, commitment
        sizes = (input_dim, codebook_dim), (codebook_dim, input_dim)
        for name, (into, out) in zip(self.projections, sizes, strict=True):
            setattr(self, name, nn.Identity() if into == out else norm(self._map(into, out)))

    def _map(self, into: int, out: int) -> nn.Module:
        return nn.Conv1d(into, out, 1)

    def _apply_map(self, place: int, x: Tensor) -> Tensor:
        """A map of [B, channels, T]."""
        mapped: Tensor = getattr(self, self.projections[place])(x)
        return mapped

    def _quantize(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """z_q, indices, commitment [B], codebook loss [B], z_e."""
        z_e = self._apply_map(0, z)
        codes, indices = self.decode_latents(z_e)[:2]
        commitment = codebook = torch.zeros(len(z))
        if self.training:
            commitment = self.commitment * (z_e - codes.detach()).square().mean((1, 2))
            codebook = self.codebook_loss_weight * (z_e.detach() - codes).square().mean((1, 2))
        return self._apply_map(1, z_e + (codes - z_e).detach()), indices, commitment, codebook, z_e

    def embed_code(self, embed_id: Tensor) -> Tensor:
        return self.codebook(embed_id)

    def decode_code(self, embed_id: Tensor) -> Tensor:
        return self.codebook(embed_id).mT

    def decode_latents(self, latents: Tensor) -> tuple[Tensor, ...]:
        rows, table = latents.mT, self.codebook.weight
        if self.normalizes:
            rows, table = functional.normalize(rows, dim=-1), functional.normalize(table, dim=-1)
        indices = (table.square().sum(-1) - 2 * rows @ table.mT).argmin(-1)
        return self.decode_code(indices), indices


class Facodec(_Factorized):
    """→ (z_q [B, D, T], indices [B, T], loss [B]); `vq2emb` gives [B, D, T]."""

    projections = ("in_proj", "out_proj")

    def __init__(
        self, dim: int, codebook_size: int, codebook_dim: int, commitment: float, **options: Norm
    ) -> None:
        super().__init__(dim, codebook_size, codebook_dim, commitment, **options)
        self._codebook = nn.Embedding(codebook_size, codebook_dim)

    @property
    def codebook(self) -> nn.Embedding:
        return self._codebook

    def _map(self, into: int, out: int) -> nn.Module:
        return nn.Linear(into, out)

    def _apply_map(self, place: int, x: Tensor) -> Tensor:
        return super()._apply_map(place, x.mT).mT

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z_q, indices, commitment, codebook, _ = self._quantize(z)
        return z_q, indices, commitment + codebook

    def vq2emb(self, vq: Tensor, proj: bool = True) -> Tensor:
        codes = self.decode_code(vq)
        return self._apply_map(1, codes) if proj else codes

    def get_emb(self) -> Tensor:
        return self.codebook.weight


class BigCodec(Facodec):
    """The same, but `vq2emb` gives [B, T, D]."""

    def vq2emb(self, vq: Tensor, proj: bool = True) -> Tensor:
        return super().vq2emb(vq, proj).mT


class Amphion(_Factorized):
    """→ (z_q [B, D, T], commitment [B], codebook loss [B], indices [B, T], z_e [B, d, T])."""

    projections = ("in_project", "out_project")

    def __init__(
        self,
        input_dim: int,
        codebook_size: int,
        codebook_dim: int,
        commitment: float = 0.005,
        codebook_loss_weight: float = 1.0,
        use_l2_normlize: bool = True,
        **options: Norm,
    ) -> None:
        super().__init__(input_dim, codebook_size, codebook_dim, commitment, **options)
        self.codebook_loss_weight = codebook_loss_weight
        self.use_l2_normlize = self.normalizes = use_l2_normlize
        self.codebook = nn.Embedding(codebook_size, codebook_dim)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        z_q, indices, commitment, codebook, z_e = self._quantize(z)
        return z_q, commitment, codebook, indices, z_e

    def vq2emb(self, vq: Tensor, out_proj: bool = True) -> Tensor:
        codes = self.decode_code(vq)
        return self._apply_map(1, codes) if out_proj else codes

    def latent2dist(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codes, indices = self.decode_latents(latents)
        return -torch.cdist(latents.mT, self.codebook.weight), indices, codes


class Spark(_Factorized):
    """→ a dict of z_q, indices, distances, loss [], perplexity [], number of codes []."""

    projections = ("in_project", "out_project")

    def __init__(
        self, input_dim: int, codebook_size: int, codebook_dim: int, commitment: float, **options: Norm
    ) -> None:
        super().__init__(input_dim, codebook_size, codebook_dim, commitment, **options)
        self.threshold_ema_dead_code = 2
        self.codebook = nn.Embedding(codebook_size, codebook_dim)
        self.register_buffer("cluster_size", torch.zeros(codebook_size))

    def forward(self, z: Tensor) -> dict[str, Tensor]:
        z_q, indices, commitment, codebook, z_e = self._quantize(z)
        shares = indices.flatten().bincount(minlength=self.codebook_size) / indices.numel()
        return {
            "z_q": z_q,
            "indices": indices,
            "dists": torch.cdist(z_e.mT, self.codebook.weight).flatten(0, 1),
            "vq_loss": (commitment + codebook).mean(),
            "perplexity": torch.special.entr(shares).sum().exp(),
            "active_num": (shares > 0).sum().float(),
        }

    def tokenize(self, z: Tensor) -> Tensor:
        return self._quantize(z)[1]

    def detokenize(self, indices: Tensor) -> Tensor:
        return self._apply_map(1, self.decode_code(indices))

    def get_emb(self) -> Tensor:
        return self.codebook.weight


KINDS = {
    "factorized": Facodec,
    "factorized_bigcodec": BigCodec,
    "factorized_amphion": Amphion,
    "factorized_spark": Spark,
}
for _kind in KINDS.values():
    _kind.__name__ = "FactorizedVectorQuantize"
