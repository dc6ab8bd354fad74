"""What a verdict asks of a quantizer before it judges, and the remedies that several verdicts share."""

from quantizers.core.base import Quantizer
from quantizers.diagnosis.measures import Measures
from quantizers.scalar.grid import GridQuantizer

VECTORS_PER_CODE = 5
"""The fewest vectors per code from which the use of a codebook can be judged.

If each of N = 5 K vectors chose any code with the same probability, e⁻⁵ = 0.7 % of the codes would remain unused
by chance. With one vector per code it would be 37 %.
"""

REPLACEMENT = "replacement = quantizers.DeadCodeReplacement(model, optimizer)"


def has_enough_vectors(measures: Measures) -> bool:
    """Whether there are `VECTORS_PER_CODE` vectors for each code of one codebook."""
    return measures.codebook_size is not None and measures.vectors >= VECTORS_PER_CODE * measures.codebook_size


def is_grid(measures: Measures) -> bool:
    """Whether the codes are the points of a grid, which are not learned."""
    return isinstance(measures.quantizer, GridQuantizer)


def _learns(quantizer: Quantizer) -> bool:
    """Whether training can adapt the codes to the vectors, by gradients or by averages."""
    return quantizer.observes or any(True for _ in quantizer._code_parameters())


def is_collapsed(measures: Measures) -> bool:
    """Whether all vectors are the same, up to a rounding of float32 in each channel."""
    if measures.vectors < 2 or measures.vector_spread is None or measures.vector_norm is None:
        return False
    return measures.vector_spread <= 2.0**-20 * measures.vector_norm


def warm_start(measures: Measures) -> str:
    """The line that starts codes by k-means."""
    return "quantizers.warm_start(model, batches)" if measures.name else "quantizer.initialize_from(vectors)"


def larger_entropy(measures: Measures) -> str | None:
    """The line that doubles the weight of an entropy loss; None for a quantizer without one."""
    weight = getattr(measures.quantizer, "entropy_weight", None)
    return None if weight is None else f"{measures.path}.entropy_weight = {2 * weight or 0.1:.4g}"


def dim_of(measures: Measures) -> int | str:
    """The channels of the vectors, for a line of code."""
    return "dim" if measures.quantizer is None else measures.quantizer.dim


def approximates(measures: Measures) -> bool:
    """Whether learned codes are to lie close to the vectors that choose them.

    So it is where the nearest code is chosen and a commitment loss exists. IBQ compares products, the vectors of
    Gumbel are logits, and the codes of lattices and random projections stay.
    """
    quantizer = measures.quantizer
    if quantizer is None:
        return False
    parts = [
        each for each in quantizer.modules() if isinstance(each, Quantizer) and not hasattr(each, "components")
    ]
    return all(map(_approximates, parts))


def _approximates(quantizer: Quantizer) -> bool:
    if not hasattr(quantizer, "commitment_weight") or not _learns(quantizer):
        return False
    return quantizer._index_rule.get("choice", "nearest") == "nearest" and not isinstance(quantizer, GridQuantizer)


def tables(quantizer: Quantizer | None) -> bool:
    """Whether replacement can set single codes."""
    return quantizer is not None and quantizer.has_table and not quantizer.frozen
