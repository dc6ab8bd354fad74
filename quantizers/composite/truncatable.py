"""Compositions of which the first components can be used without the others."""

from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor

from quantizers.composite.composed import ComposedQuantizer, all_valid
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.core.truncatable import TruncatableQuantizer


class TruncatableComposition(TruncatableQuantizer, ComposedQuantizer, RowQuantizer):
    """A composition whose parts are its components."""

    @property
    def codebook_counts(self) -> tuple[int, ...]:
        """The number of codebooks of the first component, the first two components, and so on."""
        return tuple(accumulate([component.num_codebooks for component in self.components]))

    def _zero_loss_of_unused(self, used: Sequence[RowQuantizer], z: Tensor) -> Tensor:
        """0-d zero with a zero gradient for the parameters of unused components, from calls with an empty batch.

        Without a gradient for them DistributedDataParallel would wait, and without the calls so would ranks that
        share sharded components.
        """
        unused = [item for item in dict.fromkeys(self.components) if item not in used] if self.training else []
        outputs = [item.nested_quantize(all_valid(z.new_zeros(0, item.dim))) for item in unused]
        return sum((o.quantized.sum() + o.loss.flatten()[:0].sum() for o in outputs), z.new_zeros(()))

    def extra_repr(self) -> str:
        dropout = f", dropout={self.dropout:.4g}, dropout_by={self.dropout_by!r}" if self.dropout else ""
        return super().extra_repr() + dropout
