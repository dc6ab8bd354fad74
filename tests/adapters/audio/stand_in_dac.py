"""A model with the quantizer of Descript's DAC, written from its contract in the docstrings of the adapter.

Search on normalised vectors and codes, codes as they are, straight-through, losses a mean for each sample; samples
at the front of a batch drop stages in training. Projections are convolutions of one step with weight norm.
"""

from collections.abc import Callable
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

Norm = Callable[[nn.Module], nn.Module]


class VectorQuantize(nn.Module):
    """z [B, D, T] → (z_q [B, D, T], commitment [B], codebook loss [B], indices [B, T], z_e [B, d, T])."""

    def __init__(self, input_dim: int, codebook_size: int, codebook_dim: int, norm: Norm) -> None:
        super().__init__()
        self.codebook_size, self.codebook_dim = codebook_size, codebook_dim
        self.in_proj = norm(nn.Conv1d(input_dim, codebook_dim, 1))
        self.out_proj = norm(nn.Conv1d(codebook_dim, input_dim, 1))
        self.codebook = nn.Embedding(codebook_size, codebook_dim)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        z_e = self.in_proj(z)
        z_q, indices = self.decode_latents(z_e)
        commitment = (z_e - z_q.detach()).square().mean((1, 2))
        codebook = (z_e.detach() - z_q).square().mean((1, 2))
        return self.out_proj(z_e + (z_q - z_e).detach()), commitment, codebook, indices, z_e

    def embed_code(self, embed_id: Tensor) -> Tensor:
        return self.codebook(embed_id)

    def decode_code(self, embed_id: Tensor) -> Tensor:
        return self.codebook(embed_id).transpose(1, 2)

    def decode_latents(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        cosines = F.normalize(latents, dim=1).transpose(1, 2) @ F.normalize(self.codebook.weight).T
        indices = cosines.argmax(-1)
        return self.decode_code(indices), indices


class ResidualVectorQuantize(nn.Module):
    """z [B, D, T] → (z_q [B, D, T], codes [B, N, T], latents [B, N·d, T], commitment [], codebook loss [])."""

    def __init__(
        self,
        input_dim: int = 512,
        n_codebooks: int = 9,
        codebook_size: int = 1024,
        codebook_dim: int | list[int] = 8,
        quantizer_dropout: float = 0.0,
        norm: Norm = parametrizations.weight_norm,
    ) -> None:
        super().__init__()
        dims = [codebook_dim] * n_codebooks if isinstance(codebook_dim, int) else codebook_dim
        self.n_codebooks, self.codebook_dim, self.codebook_size = n_codebooks, dims, codebook_size
        self.quantizers = nn.ModuleList(VectorQuantize(input_dim, codebook_size, dim, norm) for dim in dims)
        self.quantizer_dropout = quantizer_dropout

    def forward(self, z: Tensor, n_quantizers: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        count = self.n_codebooks if n_quantizers is None else n_quantizers
        kept = torch.full(z.shape[:1], count, device=z.device)
        if self.training:
            dropping = int(len(z) * self.quantizer_dropout)
            kept = torch.full(z.shape[:1], self.n_codebooks)
            kept[:dropping] = torch.randint(1, self.n_codebooks + 1, (dropping,))
        residual, z_q, results = z, torch.zeros_like(z), []
        for place, quantizer in enumerate(self.quantizers):
            if not self.training and place >= count:
                break
            value, *losses, indices, z_e = quantizer(residual)
            z_q = z_q + value * (place < kept)[:, None, None]
            residual = residual - value
            results.append((indices, z_e, *((loss * (place < kept)).mean() for loss in losses)))
        codes, latents, commitment, codebook = zip(*results, strict=True)
        return z_q, torch.stack(codes, 1), torch.cat(latents, 1), sum(commitment), sum(codebook)

    def from_codes(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z_p = [stage.decode_code(own) for stage, own in zip(self.quantizers, codes.unbind(1), strict=False)]
        values = [stage.out_proj(own) for stage, own in zip(self.quantizers, z_p, strict=False)]
        return torch.stack(values).sum(0), torch.cat(z_p, 1), codes

    def from_latents(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        edges = pairwise(accumulate((stage.codebook_dim for stage in self.quantizers), initial=0))
        pairs = zip(self.quantizers, (latents[:, start:stop] for start, stop in edges), strict=True)
        codes = [stage.decode_latents(own)[1] for stage, own in pairs if own.shape[1]]
        return self.from_codes(torch.stack(codes, 1))


class DAC(nn.Module):
    """As much of the codec as meets the quantizer: convolutions instead of its encoder and decoder."""

    def __init__(self, width: int = 16, **options: object) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, width, 8, stride=4, padding=2)
        self.quantizer = ResidualVectorQuantize(width, **options)  # type: ignore[arg-type]
        self.decoder = nn.ConvTranspose1d(width, 1, 8, stride=4, padding=2)

    def forward(self, audio: Tensor, n_quantizers: int | None = None) -> dict[str, Tensor]:
        z, codes, latents, commitment, codebook = self.quantizer(self.encoder(audio), n_quantizers)
        losses = {"vq/commitment_loss": commitment, "vq/codebook_loss": codebook}
        return {"audio": self.decoder(z), "z": z, "codes": codes, "latents": latents, **losses}
