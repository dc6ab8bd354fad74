"""Stand-ins for two quantizers of taming-transformers, written after what they take, return and are called."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class VectorQuantizer(nn.Module):
    """The first: z [B, C, H, W] → (z_q, loss [], (perplexity [], one-hot [B·H·W, K], indices [B·H·W, 1]))."""

    def __init__(self, n_e: int, e_dim: int, beta: float) -> None:
        super().__init__()
        self.n_e, self.e_dim, self.beta = n_e, e_dim, beta
        self.embedding = nn.Embedding(n_e, e_dim)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        vectors = z.movedim(1, -1)
        indices = torch.cdist(vectors.reshape(-1, self.e_dim), self.embedding.weight).argmin(1)
        codes = self.embedding(indices).view(vectors.shape)
        to_codes, to_vectors = (codes.detach() - vectors).square(), (codes - vectors.detach()).square()
        loss = to_codes.mean() + self.beta * to_vectors.mean()
        straight_through = (vectors + (codes - vectors).detach()).movedim(-1, 1)
        one_hot = functional.one_hot(indices, self.n_e).float()
        perplexity = torch.special.entr(one_hot.mean(0)).sum().exp()
        return straight_through, loss, (perplexity, one_hot, indices[:, None])

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...] | None) -> Tensor:
        codes = self.embedding(indices)
        return codes if shape is None else codes.view(shape).movedim(-1, 1)


class GumbelQuantize(nn.Module):
    """z [B, num_hiddens, H, W] → (z_q [B, embedding_dim, H, W], loss [], (None, None, indices [B, H, W]))."""

    def __init__(
        self,
        num_hiddens: int,
        embedding_dim: int,
        n_embed: int,
        straight_through: bool = True,
        kl_weight: float = 5e-4,
        temp_init: float = 1.0,
        use_vqinterface: bool = True,
    ) -> None:
        super().__init__()
        self.embedding_dim, self.n_embed = embedding_dim, n_embed
        self.straight_through, self.kl_weight, self.temperature = straight_through, kl_weight, temp_init
        self.use_vqinterface = use_vqinterface
        self.remap = None
        self.proj = nn.Conv2d(num_hiddens, n_embed, 1)
        self.embed = nn.Embedding(n_embed, embedding_dim)

    def forward(
        self, z: Tensor, temp: float | None = None, return_logits: bool = False
    ) -> tuple[Tensor | tuple[None, None, Tensor], ...]:
        logits = self.proj(z)
        hard = self.straight_through or not self.training
        sample = functional.gumbel_softmax(logits, self.temperature if temp is None else temp, hard, dim=1)
        z_q = (sample.movedim(1, -1) @ self.embed.weight).movedim(-1, 1)
        to_uniform = functional.log_softmax(logits, 1) + torch.tensor(self.n_embed).log()
        divergence = (logits.softmax(1) * to_uniform).sum(1).mean()
        indices = sample.argmax(1)
        info = (None, None, indices) if self.use_vqinterface else indices
        return (z_q, self.kl_weight * divergence, info, *([logits] if return_logits else []))

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.embed(indices).view(shape).movedim(-1, 1)
