"""(a) Who keeps a large codebook in use."""

from benchmarks.study.effects import Comparison, Effect, Setting, against_d, against_k
from benchmarks.study.measures import PERPLEXITY, PSNR, USED, USED_ON_TRAINING
from benchmarks.study.questions.variants import (
    DIAGONAL,
    DIMS,
    EMA,
    EMA_REPLACED,
    FEW,
    FSQ,
    LEARNED_BASIS,
    LOW_DIM,
    LOW_DIM_COSINE,
    MANY,
    ROTATION,
    SIMVQ,
    SIZES,
    VQ,
    VQ_REPLACED,
)

REMEDIES = {
    SIMVQ: "SimVQ",
    DIAGONAL: "SimVQ with a diagonal map",
    LEARNED_BASIS: "SimVQ with a learned basis",
    ROTATION: "VQ with the rotation trick",
    EMA: "EMA without replacement",
    EMA_REPLACED: "EMA with replacement",
    VQ_REPLACED: "VQ with replacement",
    LOW_DIM: "VQ with codes of 8 channels",
    LOW_DIM_COSINE: "VQ with codes of 8 channels and norm 1",
    FSQ: "FSQ",
}
OVER_D = (VQ, SIMVQ, ROTATION, EMA_REPLACED, FSQ)


def against_plain(name: str) -> Comparison:
    sentence = f"Of {MANY} codes, {REMEDIES[name]} uses a larger share than VQ"
    return Comparison(sentence, USED, Setting(name, MANY), Setting(VQ, MANY))


UTILIZATION = Effect(
    "a",
    "Who keeps a large codebook in use",
    "Plain VQ uses a smaller share of its codes the more of them there are and the more channels they have. "
    "SimVQ, the rotation trick, moving averages with replacement, codes of few channels and FSQ keep them (Zhu "
    "et al. 2024, table 1).",
    [
        *(against_k(measure, (VQ, *REMEDIES), SIZES) for measure in (USED, USED_ON_TRAINING, PERPLEXITY, PSNR)),
        *(against_d(measure, OVER_D, DIMS) for measure in (USED, PSNR)),
    ],
    [
        Comparison(
            f"VQ uses a larger share of {FEW} codes than of {MANY}", USED, Setting(VQ, FEW), Setting(VQ, MANY)
        ),
        Comparison("VQ uses more codes at D 8 than at D 128", USED, Setting(VQ, dim=8), Setting(VQ, dim=128)),
        *map(against_plain, REMEDIES),
        Comparison(
            f"With {MANY} codes, SimVQ reconstructs better than VQ", PSNR, Setting(SIMVQ, MANY), Setting(VQ, MANY)
        ),
    ],
)
