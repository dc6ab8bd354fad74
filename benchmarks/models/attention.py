"""The blocks of transformers, and a cache for tokens that arrive in groups."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from quantizers.core.arguments.checks import check_at_least


class AttentionBlock(nn.Module):
    """x ← x + attention(norm(x)), x ← x + MLP(norm(x)), for tokens [B, T, width]."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.from_heads = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Args: mask: bool [T, T], True where a token (row) sees another (column). Default: all see all."""
        query, key, value = self.project(tokens)
        return self.finish(tokens, F.scaled_dot_product_attention(query, key, value, attn_mask=mask))

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value, each [B, heads, T, width / heads]."""
        qkv = self.to_qkv(self.attention_norm(tokens)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Apply the layers after the attention to its output [B, heads, T, width / heads]."""
        tokens = tokens + self.dropout(self.from_heads(attended.transpose(1, 2).flatten(2)))
        return tokens + self.dropout(self.mlp(self.mlp_norm(tokens)))


class CausalBlock(AttentionBlock):
    """A block in which each token sees itself and the tokens before it."""

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.project(tokens)
        return self.finish(tokens, F.scaled_dot_product_attention(query, key, value, is_causal=True))


def stack_blocks(kind: type[AttentionBlock], layers: int, width: int, heads: int, dropout: float) -> nn.ModuleList:
    """Return `layers` blocks of a kind.

    Raises: ValueError unless there is at least one layer and one head, and width is a multiple of heads.
    """
    check_at_least("layers", layers, 1)
    if width % check_at_least("heads", heads, 1):
        raise ValueError(f"width is {width}, expected a multiple of heads={heads}")
    return nn.ModuleList(kind(width, heads, dropout) for _ in range(layers))


class AttentionCache:
    """The keys and values of all tokens so far, for blocks that receive the tokens in groups.

    Args:
        blocks: applied one after another.
        batch: B, the number of sequences.
        length: the number of tokens of a whole sequence.
    """

    def __init__(self, blocks: Sequence[AttentionBlock], batch: int, length: int) -> None:
        self.blocks = blocks
        self.taken = 0  # tokens of each sequence so far
        weight, heads = blocks[0].from_heads.weight, blocks[0].heads
        size = (2, batch, heads, length, len(weight) // heads)
        self.caches = [weight.new_zeros(size) for _ in blocks]  # keys and values

    def append(self, tokens: Tensor) -> Tensor:
        """Pass the next tokens [B, n, width] through all blocks; each sees its group and all earlier tokens."""
        now = slice(self.taken, self.taken + tokens.shape[1])
        for block, cache in zip(self.blocks, self.caches, strict=True):
            query, cache[0, :, :, now], cache[1, :, :, now] = block.project(tokens)
            keys, values = cache[:, :, :, : now.stop]
            tokens = block.finish(tokens, F.scaled_dot_product_attention(query, keys, values))
        self.taken = now.stop
        return tokens
