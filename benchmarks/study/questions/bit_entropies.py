"""(h) Entropies of single bits and of groups of bits."""

from benchmarks.study.effects import Comparison, Effect, Setting, Table
from benchmarks.study.measures import PERPLEXITY, PSNR, USED
from benchmarks.study.questions.quality import QUALITY
from benchmarks.study.questions.variants import VQ

ALL_BITS = 10  # of K 1024
GROUPS = (1, 5, ALL_BITS)
WORDS = {1: "single bits", 5: "groups of five bits", ALL_BITS: "all ten bits together"}
METHODS = {"lfq": "LFQ", "bsq": "BSQ"}


def grouped(name: str, bits: int) -> str:
    """The method with the batch entropy of groups of that many bits."""
    return f"{name}:group_bits={bits}"


def more_with_more_bits(name: str) -> list[Comparison]:
    """The claims that larger groups use more codes, more evenly, and reconstruct better."""
    return [
        Comparison(
            f"{METHODS[name]}: the entropy of {WORDS[many]} {words} than that of {WORDS[few]}",
            measure,
            Setting(grouped(name, many)),
            Setting(grouped(name, few)),
        )
        for few, many in ((1, ALL_BITS), (5, ALL_BITS))
        for words, measure in (("uses more codes", USED), ("has a higher perplexity", PERPLEXITY))
    ] + [
        Comparison(
            f"{METHODS[name]}: the entropy of {WORDS[ALL_BITS]} reconstructs better than that of {WORDS[1]}",
            PSNR,
            Setting(grouped(name, ALL_BITS)),
            Setting(grouped(name, 1)),
        )
    ]


BIT_ENTROPIES = Effect(
    "h",
    "Entropies of single bits and of groups of bits",
    "The entropy of the batch, which is to keep all codes in use, is taken bit by bit (Zhao et al. 2024, their "
    "approximation), over groups of bits (their code), or over all bits together (Yu et al. 2023). A sum over "
    "single bits cannot see that bits copy each other.",
    [
        Table(
            "The batch entropy of 1, 5 and all 10 bits",
            [VQ, *(grouped(name, bits) for name in METHODS for bits in GROUPS)],
            QUALITY,
        )
    ],
    [comparison for name in METHODS for comparison in more_with_more_bits(name)],
)
