"""The tables of codes in a model, and the vectors that chose their codes in a forward."""

from collections.abc import Iterator

from torch import Tensor, nn

from quantizers.composite.composed import outermost
from quantizers.core.base import Quantizer
from quantizers.core.code_hooks import ForwardEvent
from quantizers.core.layout import to_rows
from quantizers.core.learned_codes import LearnedCodes
from quantizers.core.wrappers import named_modules
from quantizers.kernels.common.dispatch import without_autocast


def tables_of(model: nn.Module) -> dict[str, Quantizer]:
    """The quantizers in a model that have a table of codes (`has_table`), by name, alone or inside others.

    Raises: ValueError if there is none.
    """
    inside = {module for quantizer in outermost(model).values() for module in quantizer.modules()}
    tables = {
        name: module
        for name, module in named_modules(model)
        if module in inside and isinstance(module, Quantizer) and module.has_table
    }
    if not tables:
        raise ValueError(
            f"model is {type(model).__name__}, which has no codes that can be replaced, expected a "
            "VectorQuantizer, an EMAVectorQuantizer or a GumbelQuantizer with logits='distance'"
        )
    return tables


def chosen_vectors(quantizer: Quantizer, event: ForwardEvent) -> Iterator[tuple[LearnedCodes, Tensor, Tensor]]:
    """The vectors that chose codes in one call of an outermost quantizer.

    Yields: (table, vectors [n, code_dim], indices [n] ≥ 0) for each table in it, and each of its places in a
        composition.
    """
    x, indices = event.x, event.indices
    rows = to_rows(x, event.mask, quantizer.dim, quantizer.channel_dim, event.sizes)
    with without_autocast(x.device):
        flat = indices.reshape(-1, indices.shape[-1]) if quantizer.composed else indices.reshape(-1)
        for table, z, chosen in quantizer.learned_rows(rows, flat):
            yield table, z[chosen >= 0], chosen[chosen >= 0]
