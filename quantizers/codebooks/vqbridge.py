"""VQBridge: a map of the whole codebook through a small vision transformer, for SimVQ."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers.codebooks.simvq import SimVQ
from quantizers.core.arguments.checks import Finite, Size
from quantizers.core.arguments.configurable import configurable
from quantizers.core.arguments.forwarding import check_forwarded, forwards, split_options
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import refined
from quantizers.core.projection import Norm, Projection
from quantizers.core.registry import register
from quantizers.core.state.initialization import SelfInitialized
from quantizers.core.state.quantizer_state import float32_by_default
from quantizers.kernels.common.modes import undifferentiated


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
    """Maps the whole codebook through a small vision transformer: C ↦ C + γ ⊙ bridge(C), for SimVQ.

    Use it for large codebooks for which a matrix is too weak a map: every code depends on every other, so that
    each step moves all codes, chosen or not.

    Chang et al.: Scalable Training for Vector-Quantized Networks with 100% Codebook Utilization (FVQ), 2025
    (arXiv 2509.10140). The bridge works in three steps. Compress: p = patch_size consecutive codes form a token,
    ⌈K/p⌉ tokens of pD numbers, mapped linearly to `width`. Process: learned positions, then `blocks` transformer
    blocks, in which each token attends to all. Recover: a linear map back to pD numbers per token, [K, D].

    The paper has neither the addition of C nor the gate γ [D], which starts at zero (ReZero, Bachlechner et al.
    2020, arXiv 2003.04887). With them the first codes are the basis itself, as with SimVQ's other maps, and not
    the output of an untrained transformer. A zero in the last layer would do the same, but that layer has rows of
    its own for each position in a patch: rows for positions that no vector chose would get no gradient, and their
    codes would not move. They also let `set_codebook` and `warm_start` set the codes, for which the bridge must be
    able to become the identity. They cost little: in the benchmark's autoencoder (K 1024, D 32, 1000 steps,
    three seeds) the bridge reached 23.0 to 23.2 dB with 38 to 44 codes in use, in the published form 23.2 to 23.4
    dB with 57 to 111, and plain VQ 22.0 to 22.6 dB with 18 to 31. It needs no aid there. The published runs are of
    40 epochs of ImageNet.

    Use it as `SimVQ(dim, K, transform=VQBridge(K, dim), learned_basis=True)`, registered as "vqbridge". Each
    forward computes the map; for a decoder alone store its result, `quantizer.codebook`.

    Example:
        >>> bridge = VQBridge(codebook_size=64, dim=16, width=32)
        >>> codes = torch.randn(64, 16)
        >>> torch.equal(bridge(codes), codes)  # until the gate has learned
        True

    Args:
        codebook_size: K ≥ 1. dim: D, channels of a code.
        patch_size: p, codes per token. Attention takes (K/p)² · width operations. Its memory is O(K/p · width)
            where PyTorch has a fused kernel, as for float32 on CPUs and GPUs, and heads · (K/p)² numbers
            elsewhere.
        width: channels of a token, a multiple of `heads`. blocks: number of blocks. heads: attention heads.
        gate: initial value of γ.

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
        """Draw the positions from N(0, 0.02²) and reset the gate. The layers reset themselves."""
        nn.init.normal_(self.positions, std=0.02)
        nn.init.constant_(self.gate, self.initial_gate)

    def to_identity(self) -> None:
        """Set the gate to zero, whatever its initial value: codes are mapped to themselves."""
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
    """A block of ViT (arXiv 2010.11929): h ← h + attention(norm(h)), h ← h + MLP(norm(h)), tokens h [T, width]."""

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
        # nn.MultiheadAttention takes another path without gradients, which rounds differently.
        qkv = self.to_qkv(tokens).unflatten(-1, (3, self.heads, -1))  # [T, 3, heads, width / heads]
        query, key, value = qkv.permute(1, 2, 0, 3).unsqueeze(1).unbind(0)  # [1, heads, T, width / heads] each
        # PyTorch differentiates this function once, and not in forward mode.
        first, second, third = undifferentiated(query, key, value)
        fused = F.scaled_dot_product_attention(first, second, third)
        attended = refined(fused, _attention, query, key, value)[0].transpose(0, 1).flatten(1)
        projected: Tensor = self.from_heads(attended)
        return projected


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by its definition, with all T × T weights, for second derivatives."""
    weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
    attended: Tensor = weights @ value
    return attended


@register("vqbridge")
@forwards(VQBridge, SimVQ, without=("transform",))
@checked
def bridged_simvq(
    dim: Size, codebook_size: Size, code_dim: Size | None = None, learned_basis: bool = True, **options: Any
) -> SimVQ:
    """Build a SimVQ whose transform is a VQBridge of its size.

    Args: options: further arguments of VQBridge and, apart from `transform`, of SimVQ.
    """
    check_forwarded(bridged_simvq, options)
    own, others = split_options(VQBridge, options)
    bridge = VQBridge(codebook_size, dim if code_dim is None else code_dim, **own)
    return SimVQ(dim, codebook_size, code_dim=code_dim, transform=bridge, learned_basis=learned_basis, **others)
