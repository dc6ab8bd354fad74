"""(d) FSQ against VQ over the codebook size."""

from benchmarks.study.effects import Comparison, Effect, Setting, against_k
from benchmarks.study.measures import PERPLEXITY, PSNR, USED
from benchmarks.study.questions.variants import FSQ, MANY, SIZES, VQ, VQ_REPLACED

TINY_SIZES = (16, 64, *SIZES)

GRIDS = Effect(
    "d",
    "FSQ against VQ over the codebook size",
    "VQ stops gaining, and uses ever fewer of its codes, as K grows; FSQ continues to gain (Mentzer et al. "
    "2023, figure 3).",
    [against_k(measure, (VQ, VQ_REPLACED, FSQ), TINY_SIZES) for measure in (PSNR, USED, PERPLEXITY)],
    [
        Comparison("FSQ gains from K 1024 to 16384", PSNR, Setting(FSQ, MANY), Setting(FSQ, 1024)),
        Comparison("VQ gains from K 1024 to 16384", PSNR, Setting(VQ, MANY), Setting(VQ, 1024)),
        Comparison(f"VQ is better than FSQ at K {TINY_SIZES[0]}", PSNR, Setting(VQ, 16), Setting(FSQ, 16)),
        Comparison(f"FSQ is better than VQ at K {MANY}", PSNR, Setting(FSQ, MANY), Setting(VQ, MANY)),
        Comparison(
            f"FSQ is better than VQ with replacement at K {MANY}",
            PSNR,
            Setting(FSQ, MANY),
            Setting(VQ_REPLACED, MANY),
        ),
    ],
)
