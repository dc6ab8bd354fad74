"""(b) How fast SimVQ converges."""

from benchmarks.study.effects import Column, Comparison, Effect, Setting, Table
from benchmarks.study.measures import STEPS_TO_VQ
from benchmarks.study.questions.variants import DIAGONAL, DIAGONAL_LEARNED_BASIS, SIMVQ, SIZES, VQ

PATHS = {VQ: "VQ", DIAGONAL: "the diagonal map", DIAGONAL_LEARNED_BASIS: "the diagonal map of a learned basis"}


def slower(first: str, second: str, size: int) -> Comparison:
    """The claim that the first quantizer needs more steps than the second to reach VQ's final error."""
    words = {**PATHS, SIMVQ: "SimVQ"}
    sentence = f"K {size}: {words[first]} needs more steps than {words[second]}"
    return Comparison(sentence, STEPS_TO_VQ, Setting(first, size), Setting(second, size))


CONVERGENCE = Effect(
    "b",
    "How fast SimVQ converges",
    "At the same K, SimVQ's error falls faster than that of VQ, and the diagonal map's lies between (Zhu et al. "
    "2024; Su, note of November 2024, where the basis is learned, too).",
    [
        Table(
            "Training steps until the error is where VQ's ends",
            (*PATHS, SIMVQ),
            [Column(f"K {size}", STEPS_TO_VQ, size) for size in SIZES[1:]],
        )
    ],
    [
        slower(first, second, size)
        for size in SIZES[1:]
        for first, second in (
            (VQ, SIMVQ),
            (VQ, DIAGONAL),
            (VQ, DIAGONAL_LEARNED_BASIS),
            (DIAGONAL_LEARNED_BASIS, SIMVQ),
        )
    ],
)
