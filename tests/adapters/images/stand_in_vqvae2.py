"""A VQ-VAE-2 with the contract of rosinality's: written from how it is called, not from its code."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Quantize(nn.Module):
    """EMA VQ on channels last. Buffers: embed [dim, n_embed], embed_avg likewise, cluster_size [n_embed]."""

    def __init__(self, dim: int, n_embed: int, decay: float = 0.99, eps: float = 1e-5) -> None:
        super().__init__()
        self.dim, self.n_embed, self.decay, self.eps = dim, n_embed, decay, eps
        codes = torch.randn(dim, n_embed)
        self.register_buffer("embed", codes)
        self.register_buffer("cluster_size", torch.zeros(n_embed))
        self.register_buffer("embed_avg", codes.clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = x.reshape(-1, self.dim)
        indices = torch.cdist(rows, self.embed.T).argmin(-1)
        codes = self.embed_code(indices)
        if self.training:
            self._learn(rows.detach(), indices)
        indices, codes = indices.reshape(x.shape[:-1]), codes.reshape(x.shape)
        return x + (codes - x).detach(), (codes.detach() - x).square().mean(), indices

    @torch.no_grad()
    def _learn(self, rows: Tensor, indices: Tensor) -> None:
        chosen = F.one_hot(indices, self.n_embed).to(rows.dtype)
        self.cluster_size.lerp_(chosen.sum(0), 1 - self.decay)
        self.embed_avg.lerp_(rows.T @ chosen, 1 - self.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.eps) / (total + self.n_embed * self.eps) * total
        self.embed.copy_(self.embed_avg / smoothed)

    def embed_code(self, indices: Tensor) -> Tensor:
        return self.embed.T[indices]


class VQVAE(nn.Module):
    """Two levels: the top one conditions the bottom one."""

    def __init__(self, width: int = 8, codes: int = 32, decay: float = 0.9, eps: float = 1e-3) -> None:
        super().__init__()
        self.enc_b = nn.Conv2d(3, 16, 2, stride=2)
        self.enc_t = nn.Conv2d(16, 16, 2, stride=2)
        self.quantize_conv_t = nn.Conv2d(16, width, 1)
        self.quantize_t = Quantize(width, codes, decay, eps)
        self.dec_t = nn.ConvTranspose2d(width, 16, 2, stride=2)
        self.quantize_conv_b = nn.Conv2d(32, width, 1)
        self.quantize_b = Quantize(width, codes, decay, eps)
        self.upsample_t = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.dec = nn.ConvTranspose2d(2 * width, 3, 2, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        top, bottom, diff, _, _ = self.encode(x)
        return self.decode(top, bottom), diff

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        below = self.enc_b(x).relu()
        latent = self.quantize_conv_t(self.enc_t(below)).permute(0, 2, 3, 1)
        top, diff_t, id_t = self.quantize_t(latent)
        top = top.permute(0, 3, 1, 2)
        both = torch.cat([self.dec_t(top), below], 1)
        bottom, diff_b, id_b = self.quantize_b(self.quantize_conv_b(both).permute(0, 2, 3, 1))
        return top, bottom.permute(0, 3, 1, 2), diff_t.unsqueeze(0) + diff_b.unsqueeze(0), id_t, id_b

    def decode(self, top: Tensor, bottom: Tensor) -> Tensor:
        return self.dec(torch.cat([self.upsample_t(top), bottom], 1))

    def decode_code(self, code_t: Tensor, code_b: Tensor) -> Tensor:
        top, bottom = self.quantize_t.embed_code(code_t), self.quantize_b.embed_code(code_b)
        return self.decode(top.permute(0, 3, 1, 2), bottom.permute(0, 3, 1, 2))
