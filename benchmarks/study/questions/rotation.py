"""(c) The rotation trick against straight-through."""

from benchmarks.study.effects import Comparison, Effect, Setting, Table
from benchmarks.study.measures import LATENT_ERROR, PSNR, QUANTIZATION_ERROR, USED
from benchmarks.study.questions.quality import QUALITY
from benchmarks.study.questions.variants import EMA, SHORT_EMA, SIMVQ, VQ, VQ_REPLACED

ROTATED = {name: f"{name}:gradient=rotation" for name in (VQ, VQ_REPLACED, EMA, SHORT_EMA, SIMVQ)}


def by_rotation(name: str) -> list[Comparison]:
    """The claims that rotation reconstructs better, uses more codes, and has the smaller quantization error."""
    through, around = Setting(name), Setting(ROTATED[name])
    return [
        Comparison(f"{name}: rotation reconstructs better than straight-through", PSNR, around, through),
        Comparison(f"{name}: rotation uses more codes", USED, around, through),
        Comparison(
            f"{name}: straight-through has the larger quantization error", QUANTIZATION_ERROR, through, around
        ),
        Comparison(
            f"{name}: straight-through has the larger one as a share of the variance",
            LATENT_ERROR,
            through,
            around,
        ),
    ]


ROTATION_TRICK = Effect(
    "c",
    "The rotation trick against straight-through",
    "The rotation trick reconstructs better than straight-through, uses more codes and has a smaller quantization "
    "error (Fifty et al. 2024, tables 1 to 3).",
    [Table("Straight-through and rotation", [name for pair in ROTATED.items() for name in pair], QUALITY)],
    [comparison for name in ROTATED for comparison in by_rotation(name)],
)
