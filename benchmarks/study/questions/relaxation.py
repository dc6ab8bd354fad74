"""(i) Vectors that bypass the quantizer, and codes that harden during training."""

from benchmarks.study.effects import Comparison, Effect, Setting, Table
from benchmarks.study.measures import LATENT_ERROR, PSNR, USED
from benchmarks.study.questions.quality import QUALITY
from benchmarks.study.questions.variants import EMA, VQ

RESIDUAL = "residual"
PLAIN = {VQ: "VQ", EMA: "EMA VQ", RESIDUAL: "residual VQ"}


def bypassed(name: str) -> str:
    """The quantizer with one sample in ten unquantized in training."""
    return f"bypass:quantizer={name}:probability=0.1"


def hardened(name: str) -> str:
    """The quantizer with a value in training that goes from the vector to its code."""
    return f"interpolated:quantizer={name}:harden=True"


def against_plain(name: str) -> list[Comparison]:
    """The claims that each of the two reconstructs better, uses more codes, and keeps vectors nearer to codes."""
    return [
        comparison
        for words, relaxed in (("bypass", bypassed(name)), ("annealed hardness", hardened(name)))
        for comparison in (
            Comparison(f"{PLAIN[name]}: {words} reconstructs better", PSNR, Setting(relaxed), Setting(name)),
            Comparison(f"{PLAIN[name]}: {words} uses more codes", USED, Setting(relaxed), Setting(name)),
            Comparison(
                f"{PLAIN[name]}: without {words} the quantization error is a larger share of the variance",
                LATENT_ERROR,
                Setting(name),
                Setting(relaxed),
            ),
        )
    ]


RELAXATION = Effect(
    "i",
    "Bypass and annealed hardness",
    "The encoder drifts away from its codes. A decoder that also sees unquantized vectors (Défossez et al. 2024, "
    "Mimi), or values that turn from vectors into codes over the training, may keep the codes in use and the "
    "error small.",
    [
        Table(
            "Plain, with a bypass of one sample in ten, and with hardness annealed from 0 to 1",
            [variant for name in PLAIN for variant in (name, bypassed(name), hardened(name))],
            QUALITY,
        )
    ],
    [comparison for name in PLAIN for comparison in against_plain(name)],
)
