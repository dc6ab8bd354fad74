"""Gated PixelCNN over codes: two stacks of masked convolutions without a blind spot.

Van den Oord et al.: Conditional Image Generation with PixelCNN Decoders, 2016 (arXiv 1606.05328), sections 2.1 to
2.3. The vertical stack sees the rows above. The horizontal stack sees the codes to the left and, in each layer,
the vertical stack. In this implementation the input is shifted once, down for the vertical stack and to the right
for the horizontal one. After that, a layer may look at its own row and column, and no weight needs a mask.

    row i of the vertical stack depends on rows < i; column j of the horizontal stack also on columns < j of row i
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.models.prior import Prior, Steps
from quantizers.core.arguments.checks import check_at_least


def gated(x: Tensor) -> Tensor:
    """Return tanh(a) · σ(b) for the two halves of x's channels (equation 2): [B, 2C, h, w] → [B, C, h, w]."""
    value, gate = x.chunk(2, 1)
    return value.tanh() * gate.sigmoid()


class GatedLayer(nn.Module):
    """One layer of both stacks: figure 2 of the paper, with the condition of equation 4 in both gates.

    The convolutions have no padding above and to the left; the caller supplies those rows and columns. A layer can
    therefore compute the whole grid, one row, or one position. As in the paper, the vertical stack has no residual
    connection. Only the link of its last layer is used.
    """

    def __init__(self, width: int, kernel: int, dropout: float, conditional: bool) -> None:
        super().__init__()
        self.reach = kernel // 2  # rows above and columns to the left that one output needs
        self.vertical = nn.Conv2d(width, 2 * width, (self.reach + 1, kernel), padding=(0, self.reach))
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.horizontal = nn.Conv2d(width, 2 * width, (1, self.reach + 1))
        self.output = nn.Conv2d(width, width, 1)
        self.dropout = nn.Dropout(dropout)
        self.context = nn.Conv2d(width, 4 * width, 1, bias=False) if conditional else None

    def look_above(self, rows: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map `reach` + r rows [B, C, reach + r, w] to the next layer's last r rows, and to the horizontal stack's
        input.

        context: `self.context` of the condition at these r rows.

        Returns: [B, C, r, w] and [B, 2C, r, w].
        """
        above = self.vertical(rows)
        link = self.link(above)
        if context is None:
            return gated(above), link
        for_above, for_left = context.chunk(2, 1)
        return gated(above + for_above), link + for_left

    def look_left(self, columns: Tensor, link: Tensor) -> Tensor:
        """Map `reach` + s columns [B, C, r, reach + s] to the next layer's last s columns, given the link
        there."""
        own = columns[..., self.reach :]
        return own + self.output(self.dropout(gated(self.horizontal(columns) + link)))


class CodebookHead(nn.Module):
    """Logits of one codebook, from a position's features and the codes of the earlier codebooks at that
    position."""

    def __init__(self, width: int, size: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.hidden = nn.Linear(width if first else 2 * width, width)
        self.logits = nn.Linear(width, size)

    def forward(self, features: Tensor, before: Tensor) -> Tensor:
        """Return logits [..., K_c] from features [..., width] and the summed embeddings of earlier codes [...,
        width].
        """
        known = features if self.first else torch.cat([features, before], -1)
        return self.logits(F.silu(self.hidden(F.silu(known))))


class PixelCNN(Prior):
    """p(code | rows above, codes to the left, earlier codebooks, condition), by convolutions.

    With L layers and r = ⌊kernel / 2⌋, a position's logits depend on the L·r + 1 codes to its left, and on the L·r
    + 1 rows above it, L·r columns to either side. They depend on all of these and on no others. Choose L and
    kernel such that they cover the grid.

    A step computes one position per layer. The vertical stack computes a whole row at once, before its first
    position. All steps together take as many operations as one forward, whatever the grid.

    Args:
        sizes, width, classes, top_sizes, top_factor: see `Prior`.
        layers: L ≥ 1.
        kernel: odd, ≥ 3. A layer looks kernel // 2 rows up and as many columns to the left.
        dropout: dropout rate of each layer's gated features, in [0, 1).

    Shapes: codes [B, h, w, n] int64 → n logits [B, h, w, K_c].
    """

    def __init__(
        self,
        sizes: Sequence[int],
        width: int = 64,
        *,
        layers: int = 6,
        kernel: int = 5,
        dropout: float = 0.0,
        classes: int | None = None,
        top_sizes: Sequence[int] | None = None,
        top_factor: int = 2,
    ) -> None:
        super().__init__(sizes, width, classes=classes, top_sizes=top_sizes, top_factor=top_factor)
        check_at_least("layers", layers, 1)
        if check_at_least("kernel", kernel, 3) % 2 == 0:
            raise ValueError(f"kernel is {kernel}, expected an odd number, with as many columns left as right")
        self.layers = nn.ModuleList(GatedLayer(width, kernel, dropout, self.conditional) for _ in range(layers))
        self.heads = nn.ModuleList(CodebookHead(width, size, c == 0) for c, size in enumerate(self.sizes))

    def _logits(self, embedded: list[Tensor], context: Tensor | None) -> list[Tensor]:
        codes = sum(embedded).movedim(-1, 1)
        above = F.pad(codes, (0, 0, 1, 0))[:, :, :-1]
        left = F.pad(codes, (1, 0))[..., :-1]
        for layer, known in zip(self.layers, self.contexts(context), strict=True):
            above, link = layer.look_above(F.pad(above, (0, 0, layer.reach, 0)), known)
            left = layer.look_left(F.pad(left, (layer.reach, 0)), link)
        features = left.movedim(1, -1)
        logits, before = [], torch.zeros_like(features)
        for head, own in zip(self.heads, embedded, strict=True):
            logits.append(head(features, before))
            before = before + own
        return logits

    def contexts(self, context: Tensor | None) -> list[Tensor | None]:
        """Return what each layer adds for the condition: [B, 4·width, h, w], or None."""
        return [None if context is None else layer.context(context) for layer in self.layers]

    def _start(self, batch: int, shape: tuple[int, int], context: Tensor | None) -> Steps:
        return PixelSteps(self, batch, shape, context)


class PixelSteps(Steps):
    """The steps of a PixelCNN. For each layer, it stores the rows and columns that the next position needs."""

    def __init__(self, prior: PixelCNN, batch: int, shape: tuple[int, int], context: Tensor | None) -> None:
        super().__init__(prior.sizes, batch, shape)
        self.prior = prior
        self.contexts = prior.contexts(context)
        self.rows = [self._zeros(layer.reach + 1, shape[1]) for layer in prior.layers]
        self.columns: list[Tensor] = []
        self.links: list[Tensor] = []
        self.row = self._zeros(1, shape[1])  # embedded codes of the row, as far as they are known
        self.here = self._zeros(1, 1)  # embedded codes of the position, as far as they are known
        self.features = self._zeros(1, 1)

    def _zeros(self, *shape: int) -> Tensor:
        return self.prior.embeddings[0].weight.new_zeros(self.batch, self.prior.width, *shape)

    def _predict(self, row: int, column: int, codebook: int) -> Tensor:
        if codebook == 0:
            if column == 0:
                self._begin_row(row)
            self._begin_position(column)
        return self.prior.heads[codebook](self.features.flatten(1), self.here.flatten(1))

    def _begin_row(self, row: int) -> None:
        above, self.links = self.row, []
        for index, layer in enumerate(self.prior.layers):
            self.rows[index] = torch.cat([self.rows[index][:, :, 1:], above], 2)
            context = self.contexts[index]
            above, link = layer.look_above(self.rows[index], None if context is None else context[:, :, row, None])
            self.links.append(link)
        self.columns = [self._zeros(1, layer.reach + 1) for layer in self.prior.layers]
        self.here = self._zeros(1, 1)

    def _begin_position(self, column: int) -> None:
        left = self.here
        for index, layer in enumerate(self.prior.layers):
            self.columns[index] = torch.cat([self.columns[index][..., 1:], left], 3)
            left = layer.look_left(self.columns[index], self.links[index][..., column, None])
        self.features, self.here = left, self._zeros(1, 1)

    def _take(self, codes: Tensor, row: int, column: int, codebook: int) -> None:
        self.here = self.here + self.prior.embeddings[codebook](codes)[:, :, None, None]
        self.row[..., column, None] = self.here
