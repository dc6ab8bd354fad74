"""QINCo: residual quantization whose codes depend on the reconstruction so far."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers.clustering.kmeans import kmeans
from quantizers.core.arguments.checks import Count, Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.codebook import init_codes_, lookup
from quantizers.core.gradients import straight_through
from quantizers.core.layout import Rows
from quantizers.core.method_calls import MethodCall, through_forward
from quantizers.core.output import NO_CODE, QuantizerOutput
from quantizers.core.parallel import ProcessGroup
from quantizers.core.projection import Weights
from quantizers.core.registry import register
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.core.state.initialization import SelfInitialized
from quantizers.core.state.read_only import read_only
from quantizers.core.state.writing import write
from quantizers.kernels.implicit.operation import nearest_implicit_code
from quantizers.kernels.nearest.operation import nearest_code


class PlainCodes(SelfInitialized):
    """A stage of plain residual quantization: codes c [K, D] for any x̂, drawn from N(0, 1/D)."""

    def __init__(self, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.empty(codebook_size, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the codes again. The layers reset themselves."""
        init_codes_(self.codes)

    def start_from(self, codes: Tensor) -> None:
        """Make these the codes [K, D] for any x̂."""
        write(self, "codes", codes)

    def forward(self, indices: Tensor | MethodCall, context: Tensor | None = None) -> Tensor:
        """The codes [N, D] of indices [N], given the reconstruction so far x̂ [N, D], in x̂'s dtype."""
        if isinstance(indices, MethodCall):
            return indices.run(self)  # type: ignore[no-any-return]
        assert context is not None
        return self._values(indices, context)

    def _values(self, indices: Tensor, context: Tensor) -> Tensor:
        """See `forward`."""
        return lookup(self.codes, indices).to(context.dtype)

    @through_forward
    def nearest(self, targets: Tensor, context: Tensor) -> Tensor:
        """The indices [N] of the codes nearest to targets [N, D], given the reconstruction so far x̂ [N, D]."""
        return torch.squeeze(nearest_code(targets[None], self.codes[None])[0], 0)


class ImplicitCodes(PlainCodes):
    """A stage with codes f(c, x̂) = h_L, where h_0 = c + W [c; x̂] + b and h_l = h_{l−1} + V_l relu(U_l h_{l−1})."""

    def __init__(self, codebook_size: int, dim: int, hidden_dim: int, blocks: int) -> None:
        super().__init__(codebook_size, dim)
        self.concatenation = Weights(2 * dim, dim)
        self.up = nn.ModuleList(Weights(dim, hidden_dim, bias=False) for _ in range(blocks))
        self.down = nn.ModuleList(Weights(hidden_dim, dim, bias=False) for _ in range(blocks))

    def start_from(self, codes: Tensor) -> None:
        """Make these the codes [K, D] for any x̂, by zeros in W, b and V_l, whose gradients are not zero."""
        super().start_from(codes)
        for layer in (self.concatenation, *self.down):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def _values(self, indices: Tensor, context: Tensor) -> Tensor:
        codes = super()._values(indices, context)
        weight, bias, *blocks = self._weights(context.dtype)
        values = codes + F.linear(torch.cat([codes, context], -1), weight, bias)
        for up, down in zip(blocks[::2], blocks[1::2], strict=True):
            values = values + F.linear(F.linear(values, up).relu(), down)
        return values

    @through_forward
    def nearest(self, targets: Tensor, context: Tensor) -> Tensor:
        weight, bias, *blocks = self._weights(context.dtype)
        return nearest_implicit_code(targets, context, self.codes.to(context.dtype), weight, bias, blocks)

    def _weights(self, dtype: torch.dtype) -> list[Tensor]:
        """W, b, U_1, V_1, U_2, V_2, ..."""
        pairs = zip(self.up, self.down, strict=True)
        blocks = [layer()[0] for pair in pairs for layer in pair]
        return [weight.to(dtype) for weight in (*self.concatenation(), *blocks)]


@register("qinco")
class QINCo(RowQuantizer):
    """Residual quantization with implicit neural codebooks: a network adapts each codebook to each vector.

    With f_m(c, x̂) = c this is plain residual quantization. A network f_m instead gives each reconstruction x̂ its
    own codebook.

    From x̂_0 = 0, for stages m = 1 … M:

        k_m = argmin_k ‖z − x̂_{m−1} − f_m(c_m^k, x̂_{m−1})‖
        x̂_m = x̂_{m−1} + f_m(c_m^{k_m}, x̂_{m−1}), where f_1 is the code itself
        loss = Σ_m codebook_weight · mean (sg[z] − x̂_m)² + commitment_weight · mean (z − sg[x̂_m])²

    `quantized` is x̂_M with a straight-through gradient. The loss is summed over stages, as in the paper, so that
    the first m indices are a code on their own. The paper has fixed data and the first term alone; the second
    moves an encoder, as in VQ.

    The paper starts from the codebooks of a fitted residual quantizer, where this class draws random codes; the
    networks start as PyTorch's layers do, as in the paper's code. `initialize_from` sets such codebooks by
    k-means, stage after stage, and f_m(c, x̂) = c; training takes the networks from there. `decode` takes index
    −1 for a stage that adds nothing: set the last ones to −1 for a lower rate.

    A search computes f for each vector and each code: work is O(N·K·D·(D + blocks·hidden_dim)) per stage. Beyond
    some MiB, memory is O(N·D + K·hidden_dim). The nearer of two codes is chosen as exactly as float32 represents
    their f. ONNX cannot represent this search.

    Example:
        >>> import torch
        >>> from quantizers import QINCo
        >>> quantizer = QINCo(8, codebook_size=16, num_quantizers=3, hidden_dim=32)
        >>> quantized, indices, loss = quantizer(torch.randn(5, 8))
        >>> quantized.shape, indices.shape, quantizer.codebook.shape
        (torch.Size([5, 8]), torch.Size([5, 3]), torch.Size([3, 16, 8]))

    Args:
        dim: channels of x.
        codebook_size: K ≥ 1, of each stage.
        num_quantizers: M ≥ 1, stages.
        hidden_dim: channels inside the residual blocks, h in the paper.
        blocks: the number of residual blocks, L ≥ 0.
        code_dim: channels of a code, default `dim`.
        channel_dim: axis of x's channels.
        commitment_weight, codebook_weight: see above.

    Shapes: x [..., dim] → quantized [..., dim], indices [..., M], loss []. `codebook` is [M, K, code_dim], the c.

    Raises: ValueError for a size below 1.

    Source: Huijben, Douze, Muckley, van Sloun, Verbeek: Residual Quantization with Implicit Neural Codebooks, 2024
        (arXiv 2401.14732).
    """

    composed = True

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        *,
        num_quantizers: Size = 4,
        hidden_dim: Size = 256,
        blocks: Count = 2,
        code_dim: Size | None = None,
        channel_dim: int = -1,
        commitment_weight: Weight = 0.25,
        codebook_weight: Weight = 1.0,
    ) -> None:
        super().__init__(dim, codebook_size, code_dim=code_dim, channel_dim=channel_dim)
        self.num_codebooks = num_quantizers
        self.commitment_weight = commitment_weight
        self.codebook_weight = codebook_weight
        self.steps = nn.ModuleList([PlainCodes(codebook_size, self.code_dim)])
        for _ in range(1, num_quantizers):
            self.steps.append(ImplicitCodes(codebook_size, self.code_dim, hidden_dim, blocks))
        self.hidden_dim = hidden_dim
        self.blocks = blocks

    @property
    def codebook(self) -> Tensor:
        """The codes c that f starts from, [M, K, code_dim]; the first stage chooses from its codes directly."""
        return read_only(torch.stack([stage.get_parameter("codes") for stage in self.steps]))

    def _code_parameters(self) -> Iterator[nn.Parameter]:
        return self.steps.parameters()

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        z, valid = rows.vectors, rows.valid
        # Divide each error by the root of the count: no square or gradient overflows before the mean would.
        count = (valid.sum().clamp(min=1) * self.code_dim).to(z.dtype).sqrt()
        loss, found = z.new_zeros(()), []
        reconstruction = torch.zeros_like(z)
        for stage in self.steps:
            indices = self._search(stage, z, reconstruction)
            reconstruction = reconstruction + stage(indices, reconstruction)
            for weight, error in (
                (self.codebook_weight, z.detach() - reconstruction),
                (self.commitment_weight, z - reconstruction.detach()),
            ):
                if weight:  # 0 · ∞ is NaN
                    loss = loss + weight * (error.where(valid[:, None], 0.0) / count).square().sum()
            found.append(indices)
        loss = loss + reconstruction[:, :0].sum()  # zero, with a gradient of zero if all weights are zero
        return QuantizerOutput(straight_through(z, reconstruction.detach()), torch.stack(found, -1), loss)

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        for stage in self.steps:
            codes = kmeans(z, self.codebook_size, process_group=process_group)
            stage.start_from(codes)  # type: ignore[operator]
            z = z - lookup(codes, torch.squeeze(nearest_code(z[None], codes[None])[0], 0))

    def _encode(self, z: Tensor) -> Tensor:
        found, reconstruction = [], torch.zeros_like(z)
        for stage in self.steps:
            found.append(self._search(stage, z, reconstruction))
            reconstruction = reconstruction + stage(found[-1], reconstruction)
        return torch.stack(found, -1)

    @staticmethod
    def _search(stage: nn.Module, z: Tensor, reconstruction: Tensor) -> Tensor:
        reached = reconstruction.detach()
        indices: Tensor = stage.nearest(z.detach() - reached, reached)  # type: ignore[operator]
        return indices

    def _decode(self, indices: Tensor) -> Tensor:
        shape = indices.shape[0], self.code_dim
        reconstruction = torch.zeros(shape, dtype=self._dtype, device=indices.device)
        for stage, chosen in zip(self.steps, indices.unbind(-1), strict=True):
            added = stage(chosen, reconstruction)
            reconstruction = reconstruction + added.where((chosen != NO_CODE)[:, None], 0.0)
        return reconstruction

    def extra_repr(self) -> str:
        weights = f"commitment_weight={self.commitment_weight:.4g}, codebook_weight={self.codebook_weight:.4g}"
        network = f"hidden_dim={self.hidden_dim}, blocks={self.blocks}"
        return f"{super().extra_repr()}, num_quantizers={self.num_codebooks}, {network}, {weights}"
