"""A causal transformer over codes: the grid as one sequence, the codebooks of a position one after another.

Vaswani et al.: Attention Is All You Need, 2017 (arXiv 1706.03762): its decoder, with normalization before the
layers.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.models.attention import AttentionCache, CausalBlock, stack_blocks
from benchmarks.models.checks import check_grid
from benchmarks.models.prior import Prior, Steps
from quantizers.core.arguments.checks import check_at_least


class Transformer(Prior):
    """p(code | all earlier codes, condition), by attention over the flattened codes.

    A token is the embedding of the code before the predicted one (a learned vector at the start), plus learned
    vectors for the row, the column and the codebook of the predicted code, plus the condition there.

    A step attends to the keys and values of earlier steps, so its cost grows linearly, with a small slope.

    Args:
        sizes, classes, top_sizes, top_factor: see `Prior`.
        width: channels of a token, a multiple of `heads`.
        layers: number of blocks ≥ 1.
        heads: number of attention heads.
        largest: (h, w), the largest grid; smaller ones work as well.
        dropout: dropout rate of each layer's output, in [0, 1).

    Shapes: codes [B, h, w, n] int64 → n logits [B, h, w, K_c].
    """

    def __init__(
        self,
        sizes: Sequence[int],
        width: int = 128,
        *,
        layers: int = 4,
        heads: int = 4,
        largest: tuple[int, int] = (32, 32),
        dropout: float = 0.0,
        classes: int | None = None,
        top_sizes: Sequence[int] | None = None,
        top_factor: int = 2,
    ) -> None:
        super().__init__(sizes, width, classes=classes, top_sizes=top_sizes, top_factor=top_factor)
        self.largest = tuple(check_at_least("each of largest", side, 1) for side in largest)
        self.first = nn.Parameter(torch.empty(width))
        self.row = nn.Parameter(torch.empty(self.largest[0], width))
        self.column = nn.Parameter(torch.empty(self.largest[1], width))
        self.codebook = nn.Parameter(torch.empty(len(self.sizes), width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = stack_blocks(CausalBlock, layers, width, heads, dropout)
        self.norm = nn.LayerNorm(width)
        self.to_logits = nn.ModuleList(nn.Linear(width, size) for size in self.sizes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw embeddings and positions from N(0, 0.02²). The layers initialize themselves."""
        for table in (self.first, self.row, self.column, self.codebook):
            nn.init.normal_(table, std=0.02)
        for embedding in self.embeddings:
            nn.init.normal_(embedding.weight, std=0.02)

    def _logits(self, embedded: list[Tensor], context: Tensor | None) -> list[Tensor]:
        codes = torch.stack(embedded, 3)  # [B, h, w, n, width]
        batch, height, width = codes.shape[:3]
        before = torch.cat([self.first.expand(batch, 1, -1), codes.flatten(1, 3)[:, :-1]], 1)
        features = self._features(before + self.positions((height, width), context))
        return self._heads(features.unflatten(1, (height, width, -1)))

    def _features(self, tokens: Tensor) -> Tensor:
        """Return the last block's normalized output for tokens [B, T, width]."""
        tokens = self.dropout(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def _heads(self, features: Tensor) -> list[Tensor]:
        """Return the logits of each codebook from features [B, h, w, n, width]."""
        return [head(features[..., c, :]) for c, head in enumerate(self.to_logits)]

    def positions(self, shape: tuple[int, int], context: Tensor | None) -> Tensor:
        """Return what is known about each predicted code apart from other codes, [B, T, width]; B = 1 without a
        condition.
        """
        rows, columns = self.row[: shape[0], None, None], self.column[: shape[1], None]
        positions = (rows + columns + self.codebook)[None]  # [1, h, w, n, width]
        if context is not None:
            positions = positions + context.movedim(1, -1)[..., None, :]
        return positions.flatten(1, 3)

    def _start(self, batch: int, shape: tuple[int, int], context: Tensor | None) -> Steps:
        return TransformerSteps(self, batch, shape, context)

    def _check_grid(self, height: int, width: int) -> None:
        check_grid(height, width, self.largest)


class TransformerSteps(Steps):
    """The steps of a transformer, with cached keys and values."""

    def __init__(self, prior: Transformer, batch: int, shape: tuple[int, int], context: Tensor | None) -> None:
        super().__init__(prior.sizes, batch, shape)
        self.prior = prior
        self.positions = prior.positions(shape, context)
        self.before = prior.first.expand(batch, -1)  # the embedded code before the predicted one
        self.cache = AttentionCache(prior.blocks, batch, math.prod(shape) * len(prior.sizes))

    def _predict(self, row: int, column: int, codebook: int) -> Tensor:
        token = (self.before + self.positions[:, self.taken])[:, None]
        token = self.prior.norm(self.cache.append(token)[:, 0])
        return self.prior.to_logits[codebook](token)

    def _take(self, codes: Tensor, row: int, column: int, codebook: int) -> None:
        self.before = self.prior.embeddings[codebook](codes)
