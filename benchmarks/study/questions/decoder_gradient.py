"""(g) The decoder's gradient to the codes."""

from benchmarks.study.effects import Comparison, Effect, Setting, Table
from benchmarks.study.measures import PSNR, USED
from benchmarks.study.questions.quality import QUALITY
from benchmarks.study.questions.variants import ROTATION, SIMVQ, VQ, VQ_REPLACED

WITH_GRADIENT = {name: f"{name}:decoder_gradient=True" for name in (VQ, VQ_REPLACED, SIMVQ, ROTATION)}

DECODER_GRADIENT = Effect(
    "g",
    "The decoder's gradient to the codes",
    "With straight-through the codes learn from the codebook loss alone. The decoder's gradient may reach them, "
    "too, so that they move where the image becomes better.",
    [
        Table(
            "Without and with the decoder's gradient to the codes",
            [name for pair in WITH_GRADIENT.items() for name in pair],
            QUALITY,
        )
    ],
    [
        Comparison(f"{name}: {words}", measure, Setting(with_it), Setting(name))
        for name, with_it in WITH_GRADIENT.items()
        for words, measure in (
            ("the decoder's gradient reconstructs better", PSNR),
            ("the decoder's gradient uses more codes", USED),
        )
    ],
)
