"""The questions, one file each, with the tables and comparisons that answer them."""

from benchmarks.study.questions.bit_entropies import BIT_ENTROPIES
from benchmarks.study.questions.convergence import CONVERGENCE
from benchmarks.study.questions.counting import COUNTING
from benchmarks.study.questions.decoder_gradient import DECODER_GRADIENT
from benchmarks.study.questions.grids import GRIDS
from benchmarks.study.questions.relaxation import RELAXATION
from benchmarks.study.questions.rotation import ROTATION_TRICK
from benchmarks.study.questions.temperature import TEMPERATURE
from benchmarks.study.questions.utilization import UTILIZATION

EFFECTS = (
    UTILIZATION,
    CONVERGENCE,
    ROTATION_TRICK,
    GRIDS,
    TEMPERATURE,
    COUNTING,
    DECODER_GRADIENT,
    BIT_ENTROPIES,
    RELAXATION,
)
