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


def learns(measures: Measures) -> bool:
    """Whether training can adapt the codes to the vectors, by gradients or by averages."""
    quantizer = measures.quantizer
    return quantizer is not None and (quantizer.observes or any(True for _ in quantizer._code_parameters()))


def is_collapsed(measures: Measures) -> bool:
    """Whether all vectors are the same, up to a rounding of float32 in each channel."""
    if measures.vectors < 2 or measures.vector_spread is None or measures.vector_norm is None:
        return False
    return measures.vector_spread <= 2.0**-20 * measures.vector_norm


def warm_start(measures: Measures) -> str:
    """The line that starts codes by k-means."""
    return "quantizers.warm_start(model, batches)" if measures.name else "quantizer.initialize_from(vectors)"


def dim_of(measures: Measures) -> int | str:
    """The channels of the vectors, for a line of code."""
    return "dim" if measures.quantizer is None else measures.quantizer.dim


def seeks_nearest(measures: Measures) -> bool:
    """Whether the code of a vector is the nearest one, so that the distance between the two means something."""
    quantizer = measures.quantizer
    return quantizer is not None and quantizer._index_rule.get("choice") == "nearest"


def tables(quantizer: Quantizer | None) -> bool:
    """Whether replacement can set single codes."""
    return quantizer is not None and quantizer.has_table and not quantizer.frozen
