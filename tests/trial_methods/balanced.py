"""A method whose assignment depends on the batch."""

from torch import Tensor
from typing_extensions import Unpack

from quantizers import VectorQuantizer
from quantizers.codebooks.options import VQOptions
from quantizers.core.arguments.checks import Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.registry import register
from quantizers.kernels.highest.operation import highest_score


@register("trial_balanced")
class BalancedQuantizer(VectorQuantizer):
    """VQ with k = argmin_j ‖z − e_j‖² + balance · p_j in training; e_j is nearest to a share p_j of the batch."""

    index_depends_on_batch = True
    same_indices_in_training = False

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        *,
        balance: Weight = 8.0,
        **options: Unpack[VQOptions],
    ) -> None:
        super().__init__(dim, codebook_size, **options)
        self.balance = balance

    def _assign(self, z: Tensor, codebook: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.training:
            return super()._assign(z, codebook, valid)
        x, codes = z.detach(), codebook.detach()
        counts = codes.new_zeros(len(codes)).index_add(0, self._encode(x), valid.to(codes.dtype))
        shares = counts / valid.sum().clamp(min=1)
        indices = highest_score(x, 2 * codes, -codes.square().sum(-1) - self.balance * shares)
        return self._codes_and_losses(z, codebook, indices)
