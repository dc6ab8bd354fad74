"""VQBridge: a map of the whole codebook through a small vision transformer, for SimVQ."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers.core.arguments.checks import Finite, Size
from quantizers.core.arguments.configurable import configurable
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import refined
from quantizers.core.projection import Norm, Projection
from quantizers.core.state.initialization import SelfInitialized
from quantizers.core.state.quantizer_state import float32_by_default
from quantizers.kernels.modes import undifferentiated


def _architecture(bridge: "VQBridge") -> dict[str, Any]:
    """The constructor's arguments that have no attribute of their name."""
    first = bridge.blocks[0]
    assert isinstance(first, Block)
    return {
        "width": bridge.compress.out_features,
        "blocks": len(bridge.blocks),
        "heads": first.heads,
        "gate": bridge.initial_gate,
    }


@configurable("codebook_size", "dim", "patch_size", arguments=_architecture)
class VQBridge(SelfInitialized):
    """Codes C [K, D] ↦ C + γ ⊙ bridge(C), where the bridge compresses, processes and recovers the codebook.

    Chang et al.: Scalable Training for Vector-Quantized Networks with 100% Codebook Utilization (FVQ), 2025
    (arXiv 2509.10140). Compress: p = patch_size consecutive codes make a token, ⌈K/p⌉ tokens of pD numbers, mapped
    linearly to `width`. Process: learned positions, then `blocks` transformer blocks, in which each token attends
    to all. Recover: a linear map back to pD numbers a token, [K, D]. Every code depends on every other, so that
    each step moves all codes, chosen or not.

    Ours are the addition of C and the gate γ [D], zeros at the start (ReZero, Bachlechner et al. 2020, arXiv
    2003.04887): the first codes are the basis itself, as with SimVQ's other maps, and not the output of a
    transformer that has learned nothing. A gate and not a zero in the last layer, because that layer has rows of
    its own for each place in a patch: those of places that no vector chose would get no gradient, and their codes
    would not move.

    Used as `SimVQ(dim, K, transform=VQBridge(K, dim), learned_basis=True)`, registered as "vqbridge". The map is
    computed in each forward; for a decoder alone keep its result, `quantizer.codebook`.

    Args:
        codebook_size: K ≥ 1. dim: D, channels of a code.
        patch_size: p, codes a token. Attention costs (K/p)² · width operations; its memory is O(K/p · width) where
            PyTorch has a fused kernel, as for float32 on CPUs and GPUs, and heads · (K/p)² numbers where not.
        width: channels of a token, a multiple of `heads`. blocks: how many. heads: of the attention.
        gate: γ at the start.

    Shapes: codes [K, D] → [K, D], bit-equal from call to call on a CPU.

    Raises: ValueError for a size below 1, a width that `heads` does not divide, and, when used, for codes of
    another shape.
    """

    @checked
    @float32_by_default()
    def __init__(
        self,
        codebook_size: Size,
        dim: Size,
        *,
        patch_size: Size = 16,
        width: Size = 128,
        blocks: Size = 2,
        heads: Size = 4,
        gate: Finite = 0.0,
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.dim = dim
        self.patch_size = patch_size
        if width % heads:
            raise ValueError(f"width is {width}, expected a multiple of heads={heads}")
        tokens = -(-codebook_size // patch_size)
        self.compress = Projection(patch_size * dim, width)
        self.positions = nn.Parameter(torch.empty(tokens, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.norm = Norm(width)
        self.recover = Projection(width, patch_size * dim)
        self.initial_gate = gate
        self.gate = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the positions from N(0, 0.02²) and set the gate back. The layers reset themselves."""
        nn.init.normal_(self.positions, std=0.02)
        nn.init.constant_(self.gate, self.initial_gate)

    def to_identity(self) -> None:
        """Set the gate to zero, whatever it was at the start: codes are mapped to themselves."""
        nn.init.zeros_(self.gate)

    def forward(self, codes: Tensor) -> Tensor:
        if codes.shape != (self.codebook_size, self.dim):
            expected = (self.codebook_size, self.dim)
            raise ValueError(f"VQBridge got codes of shape {tuple(codes.shape)}, expected {expected}")
        missing = -self.codebook_size % self.patch_size
        patches = F.pad(codes, (0, 0, 0, missing)).reshape(-1, self.patch_size * self.dim)
        tokens = self.blocks(self.compress(patches) + self.positions)
        recovered = self.recover(self.norm(tokens)).reshape(-1, self.dim)[: self.codebook_size]
        mapped: Tensor = codes + self.gate * recovered
        return mapped

    def extra_repr(self) -> str:
        return f"codebook_size={self.codebook_size}, dim={self.dim}, patch_size={self.patch_size}"


class Block(nn.Module):
    """h ← h + attention(norm(h)), h ← h + MLP(norm(h)), of tokens h [T, width]: ViT's (arXiv 2010.11929)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = Norm(width)
        self.to_qkv = Projection(width, 3 * width)
        self.from_heads = Projection(width, width)
        self.mlp_norm = Norm(width)
        self.mlp = nn.Sequential(Projection(width, 4 * width), nn.GELU(), Projection(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self._attend(self.attention_norm(tokens))
        processed: Tensor = tokens + self.mlp(self.mlp_norm(tokens))
        return processed

    def _attend(self, tokens: Tensor) -> Tensor:
        # Not nn.MultiheadAttention: without gradients it takes another path, with other last bits.
        qkv = self.to_qkv(tokens).unflatten(-1, (3, self.heads, -1))  # [T, 3, heads, width / heads]
        query, key, value = qkv.permute(1, 2, 0, 3).unsqueeze(1).unbind(0)  # [1, heads, T, width / heads] each
        # Which PyTorch differentiates once, and not forward.
        first, second, third = undifferentiated(query, key, value)
        fused = F.scaled_dot_product_attention(first, second, third)
        attended = refined(fused, _attention, query, key, value)[0].transpose(0, 1).flatten(1)
        projected: Tensor = self.from_heads(attended)
        return projected


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by its definition, with all T × T weights, for a derivative of its derivative."""
    weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
    attended: Tensor = weights @ value
    return attended
