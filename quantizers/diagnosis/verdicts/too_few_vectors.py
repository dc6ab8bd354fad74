"""Too few vectors to judge a codebook."""

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures
from quantizers.diagnosis.verdicts.kinds import VECTORS_PER_CODE, has_enough_vectors, is_grid


def judge(measures: Measures) -> Finding | None:
    """A note where `VECTORS_PER_CODE` is not reached; a warning where no vector came at all.

    A grid is judged channel by channel, which needs few vectors.
    """
    if measures.not_finite and not measures.vectors:
        return None  # which another verdict says
    if not measures.vectors and not measures.part:
        return Finding(
            "too-few-vectors",
            "warning",
            measures.label,
            "No vector reached this quantizer in the batches that were given.",
            "Run the part of the model that contains it.",
            "quantizers.diagnose(model, batches, forward=lambda model, batch: ...)",
        )
    size = measures.codebook_size
    if size is None or size < 2 or measures.shared or is_grid(measures) or has_enough_vectors(measures):
        return None
    return Finding(
        "too-few-vectors",
        "note",
        measures.label,
        f"{measures.vectors:,} vectors for {size:,} codes, {measures.vectors / size:.2g} per code, are too few to "
        "tell dead codes from rare ones.",
        f"Pass more batches: at least {VECTORS_PER_CODE * size:,} vectors.",
        "quantizers.diagnose(model, more_batches)",
    )
