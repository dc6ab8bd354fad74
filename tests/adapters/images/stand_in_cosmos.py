"""Stand-ins for three quantizers of the Cosmos tokenizers, written after what they compute, take and return."""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional


class FSQuantizer(nn.Module):
    """z [B, D, ...], or [B, N, D] → (indices int32, quantized in `dtype`, zeros [B, 1, 1, 1])."""

    def __init__(
        self,
        levels: list[int],
        dim: int | None = None,
        num_codebooks: int = 1,
        keep_num_codebooks_dim: bool | None = None,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        basis = [prod(levels[:place]) for place in range(len(levels))]
        self.register_buffer("_levels", torch.tensor(levels, dtype=torch.int32), persistent=False)
        self.register_buffer("_basis", torch.tensor(basis, dtype=torch.int32), persistent=False)
        self.num_codebooks, width = num_codebooks, len(levels) * num_codebooks
        several = num_codebooks > 1
        self.keep_num_codebooks_dim = several if keep_num_codebooks_dim is None else keep_num_codebooks_dim
        self.dim = width if dim is None else dim
        projects = self.dim != width
        self.project_in = nn.Linear(self.dim, width) if projects else nn.Identity()
        self.project_out = nn.Linear(width, self.dim) if projects else nn.Identity()
        self.codebook_size = prod(levels)
        grid = self._grid(torch.arange(self.codebook_size)).to(dtype)
        self.register_buffer("implicit_codebook", grid, persistent=False)

    def _grid(self, indices: Tensor) -> Tensor:
        """The codes of indices."""
        half = self._levels // 2
        return (indices[..., None] // self._basis % self._levels - half) / half

    def bound(self, z: Tensor) -> Tensor:
        half = (self._levels - 1) * (1 + 1e-3) / 2
        offset = 0.5 * (self._levels % 2 == 0)
        return (z + (offset / half).atanh()).tanh() * half - offset

    def quantize(self, z: Tensor) -> Tensor:
        bounded = self.bound(z)
        return (bounded + (bounded.round() - bounded).detach()) / (self._levels // 2)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        is_map = z.ndim >= 4
        vectors = self.project_in(z.movedim(1, -1) if is_map else z)
        codes = self.quantize(vectors.unflatten(-1, (self.num_codebooks, -1)))
        half = self._levels // 2
        indices = ((codes * half + half) * self._basis).sum(-1).to(torch.int32)
        out = self.project_out(codes.flatten(-2))
        out = out.movedim(-1, 1) if is_map else out
        zeros = torch.zeros(len(z), 1, 1, 1, *z.shape[4:], dtype=out.dtype)
        return indices if self.keep_num_codebooks_dim else indices.squeeze(-1), out.to(self.dtype), zeros

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        is_map = indices.ndim >= 3 + self.keep_num_codebooks_dim
        codes = self._grid(indices)
        codes = self.project_out(codes.flatten(-2) if self.keep_num_codebooks_dim else codes)
        return (codes.movedim(-1, 1) if is_map else codes).to(self.dtype)


class ResidualFSQuantizer(nn.Module):
    """The same with stages that are all alike: indices [B, N, ...]."""

    def __init__(self, levels: list[int], num_quantizers: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.layers = nn.ModuleList([FSQuantizer(levels) for _ in range(num_quantizers)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        residual, results = x, []
        for layer in self.layers:
            results.append(layer(residual))
            residual = residual - results[-1][1].detach()
        indices, values, losses = (torch.stack(parts, 1) for parts in zip(*results, strict=True))
        self.residual = residual
        return indices, values.sum(1).to(self.dtype), losses.sum(1).to(self.dtype)

    def indices_to_codes(self, indices_stack: Tensor) -> Tensor:
        pairs = zip(self.layers, indices_stack.unbind(1), strict=True)
        return torch.stack([layer.indices_to_codes(indices) for layer, indices in pairs]).sum(0)


class VectorQuantizer(nn.Module):
    """z [B, C, H, W] → (z_q, loss [B, 1, 1, 1], (indices [B·H·W], None, loss [], loss [], perplexity []))."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        beta: float = 0.25,
        legacy: bool = True,
        use_norm: bool = False,
    ) -> None:
        super().__init__()
        self.n_e, self.e_dim, self.beta, self.legacy = num_embeddings, embedding_dim, beta, legacy
        self.norm = lambda x: functional.normalize(x, dim=-1) if use_norm else x
        self.embedding = nn.Embedding(num_embeddings, embedding_dim)
        self.remap, self.re_embed, self.sane_index_shape = None, num_embeddings, False
        self.dtype = torch.float32

    def remap_to_used(self, inds: Tensor) -> Tensor:
        raise NotImplementedError

    def unmap_to_all(self, inds: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(
        self, z: Tensor, temp: float | None = None, rescale_logits: bool = False, return_logits: bool = False
    ) -> tuple[Tensor, Tensor, tuple[Tensor, None, Tensor, Tensor, Tensor]]:
        vectors = z.movedim(1, -1)
        indices = torch.cdist(vectors.reshape(-1, self.e_dim), self.embedding.weight).argmin(1)
        codes, vectors = self.norm(self.embedding(indices).view(vectors.shape)), self.norm(vectors)
        to_codes = (codes - vectors.detach()).square().mean((1, 2, 3), keepdim=True)
        to_vectors = (codes.detach() - vectors).square().mean((1, 2, 3), keepdim=True)
        loss = to_vectors + self.beta * to_codes if self.legacy else self.beta * to_vectors + to_codes
        shares = indices.bincount(minlength=self.n_e) / len(indices)
        use = torch.special.entr(shares).sum().exp()
        info = indices, None, to_codes.mean().detach(), self.beta * to_vectors.mean().detach(), use
        return (vectors + (codes - vectors).detach()).movedim(-1, 1), loss, info

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...] | None) -> Tensor:
        codes = self.embedding(indices)
        return codes if shape is None else codes.view(shape).movedim(-1, 1)
