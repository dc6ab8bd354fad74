"""Random-projection quantization: a fixed projection and fixed codes, for constant targets."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers.core.arguments.checks import Size
from quantizers.core.arguments.options import checked
from quantizers.core.codebook import lookup
from quantizers.core.gradients import straight_through
from quantizers.core.layout import Rows
from quantizers.core.method_calls import through_forward
from quantizers.core.output import QuantizerOutput
from quantizers.core.parallel import ProcessGroup, Ranks, total
from quantizers.core.registry import register
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.core.state.half_state import widened
from quantizers.core.state.initialization import SelfInitialized
from quantizers.core.state.read_only import read_only
from quantizers.kernels.common.dispatch import without_autocast
from quantizers.kernels.common.vectors import normalize
from quantizers.kernels.common.wide import narrowed, wide
from quantizers.kernels.nearest.operation import nearest_code


class FixedProjection(SelfInitialized):
    """x ↦ xWᵀ in x's dtype, between vectors of mean μ and deviation σ and a space without either.

    Its buffers W [out_features, in_features], μ [dim] and σ [dim] are filled by the quantizer.

    Args: dim: channels of the vectors, which are its input in `IntoCodes`, and its output in `OutOfCodes`.
    """

    weight: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, in_features: int, out_features: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(out_features, in_features))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def initialize_missing(self) -> None:
        """Do nothing: the quantizer draws W together with its codes."""

    def forward(self, rows: Tensor) -> Tensor:
        return F.linear(rows, self.weight.to(rows.dtype))


class IntoCodes(FixedProjection):
    """x ↦ ((x − μ) / σ) Wᵀ."""

    def __init__(self, dim: int, code_dim: int) -> None:
        super().__init__(dim, code_dim, dim)

    def forward(self, rows: Tensor) -> Tensor:
        return super().forward((rows - self.mean.to(rows.dtype)) / self.deviation.to(rows.dtype))


class OutOfCodes(FixedProjection):
    """z ↦ μ + σ ⊙ zWᵀ."""

    def __init__(self, code_dim: int, dim: int) -> None:
        super().__init__(code_dim, dim, dim)

    def forward(self, rows: Tensor) -> Tensor:
        return self.mean.to(rows.dtype) + self.deviation.to(rows.dtype) * super().forward(rows)


@register("random_projection")
class RandomProjectionQuantizer(RowQuantizer):
    """BEST-RQ: the index of the nearest of fixed random codes, after a fixed random projection.

    Use it for the targets of masked prediction: nothing is learned, the loss is zero, and a forward changes no
    target. **Call `initialize_from` or `warm_start` first**, so that the vectors are normalized.

    Chiu, Qin, Zhang, Yu, Wu: Self-Supervised Learning with Random-Projection Quantizer for Speech Recognition,
    2022 (arXiv 2202.01855):

        k = argmin_i ‖ e_i/‖e_i‖ − Ay/‖Ay‖ ‖,  y = (x − μ) / σ                (1)

    A [code_dim, dim] is drawn by Xavier's uniform rule, the codes from N(0, 1). Both are buffers and part of
    checkpoints, so that targets are the same after a restart.

    The paper normalizes its input to mean 0 and variance 1, without which few codes are used. Here μ and σ are the
    mean and the deviation of each channel of the vectors that `initialize_from` got, over all ranks; a channel
    that is constant there has σ = 1. They are part of checkpoints like A and the codes, and nothing else changes
    them: a forward that updated them would change the targets in training. Until then μ = 0 and σ = 1, for input
    that is normalized already. The length of y does not matter.

    Statistics that are set once fit data that does not change, as in the paper: features of speech. **They do not
    fit the output of an encoder that is trained**: in the benchmark's autoencoder (K 1024, D 32, 1000 steps) its
    vectors soon had another mean, and 6 codes were in use (14.9 dB, one seed; 14.5 to 15.6 dB without statistics,
    three seeds). There put `nn.BatchNorm1d(dim, affine=False)` in front, which had 141 codes in use (21.3 dB).

    The paper uses the indices alone. Where vectors are wanted, quantized = μ + σ ⊙ A⁺ e_k/‖e_k‖ with the
    pseudo-inverse A⁺: with μ = 0 and σ = 1, the shortest vector that projects to the unit code. It is a direction
    from μ, without the length of x. With code_dim ≤ dim its index is k again. The gradient of x is
    straight-through: it is the gradient of σ ⊙ A⁺Ay, bounded at any length of x.

    Example:
        >>> quantizer = RandomProjectionQuantizer(dim=80, codebook_size=8192)
        >>> targets = quantizer.encode(torch.randn(2, 100, 80))
        >>> targets.shape, quantizer.code_dim, sum(1 for _ in quantizer.parameters())
        (torch.Size([2, 100]), 16, 0)

    Args:
        dim: channels of x. codebook_size: K ≥ 1 (8192 in the paper).
        code_dim: channels of a code. Default: 16 as in the paper, or `dim` if that is smaller.
        channel_dim: axis of x's channels.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [] (zero).

    Raises: ValueError for a size below 1.
    """

    codes: Tensor

    @checked
    def __init__(
        self, dim: Size, codebook_size: Size, *, code_dim: Size | None = None, channel_dim: int = -1
    ) -> None:
        super().__init__(
            dim,
            codebook_size,
            code_dim=min(16, dim) if code_dim is None else code_dim,
            channel_dim=channel_dim,
        )
        self.project_in = IntoCodes(dim, self.code_dim)
        self.project_out = OutOfCodes(self.code_dim, dim)
        self.register_buffer("codes", torch.empty(codebook_size, self.code_dim))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw a new projection and new codes, which gives other targets, and forget the statistics."""
        projection, back = self.get_buffer("project_in.weight"), self.get_buffer("project_out.weight")
        nn.init.xavier_uniform_(projection)
        back.copy_(torch.linalg.pinv(projection))
        nn.init.normal_(self.codes)
        self._standardize(torch.zeros(self.dim), torch.ones(self.dim))

    @property
    def initializes_from_data(self) -> bool:
        """True: `initialize_from` sets the statistics."""
        return True

    @through_forward
    @torch.no_grad()
    def initialize_rows(self, rows: Rows, process_group: ProcessGroup) -> None:
        """Set the mean and the deviation of each channel; see `initialize_from`."""
        if self.frozen:
            return
        self._check_device("x", rows.vectors)
        group, x = Ranks(process_group).group(), wide(rows.vectors)
        with without_autocast(x.device):
            weights = wide(rows.valid)[:, None]
            sums, count = total(group, (weights * x).sum(0), weights.sum(0))
            if not count:
                raise ValueError("no vector counts, expected at least one vector that is finite and not masked")
            mean = sums / count
            (squares,) = total(group, (weights * (x - mean).square()).sum(0))
            deviation = (squares / count).sqrt()
        rounding = 16 * torch.finfo(rows.vectors.dtype).eps * mean.abs()  # of the values of a constant channel
        self._standardize(mean, deviation.where(deviation > rounding, 1.0))

    def _standardize(self, mean: Tensor, deviation: Tensor) -> None:
        """Set μ and σ [dim] of both projections."""
        for where in ("project_in", "project_out"):
            for name, value in (("mean", mean), ("deviation", deviation)):
                buffer = self.get_buffer(f"{where}.{name}")
                buffer.copy_(narrowed(value, buffer.dtype, buffer.device))

    def _drawn_together(self) -> tuple[SelfInitialized, ...]:
        modules = (self, self.project_in, self.project_out)
        return tuple(module for module in modules if isinstance(module, SelfInitialized))

    @property
    def codebook(self) -> Tensor:
        """All codes, [K, code_dim], of unit norm."""
        return read_only(self._codebook())

    def _codebook(self) -> Tensor:
        return normalize(widened(self.codes))

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        z = rows.vectors
        indices = self._encode(z.detach())
        quantized = straight_through(z, self._decode(indices).to(z.dtype))
        return QuantizerOutput(quantized, indices, z.new_zeros(()))

    def _encode(self, z: Tensor) -> Tensor:
        return torch.squeeze(nearest_code(*self._compared(z))[0], 0)

    def _compared(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return normalize(z)[None], self._codebook()[None]

    def _decode(self, indices: Tensor) -> Tensor:
        return lookup(self._codebook(), indices)
