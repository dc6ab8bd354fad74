"""(f) How much utilization counted during training overstates utilization."""

from benchmarks.study.effects import Column, Comparison, Effect, Setting, Table
from benchmarks.study.measures import USED_CROPS, USED_HELD_OUT, USED_SEEN, USED_WINDOW, Measure
from benchmarks.study.questions.utilization import REMEDIES
from benchmarks.study.questions.variants import FSQ, GUMBEL, SIMVQ, VQ, VQ_REPLACED

COUNTS = (USED_SEEN, USED_WINDOW, USED_CROPS, USED_HELD_OUT)
COUNTED = (VQ, *REMEDIES, GUMBEL)


def flatters(measure: Measure, than: Measure, name: str) -> Comparison:
    return Comparison(
        f"{name} uses more codes {measure.heading} than {than.heading}",
        measure,
        Setting(name),
        Setting(name),
        than,
    )


COUNTING = Effect(
    "f",
    "How much a count in training flatters",
    "Utilization that is counted while training, over all steps or a window of them, says more than is there on "
    "held-out data.",
    [Table("Codes used in %, counted in four ways", COUNTED, [Column(each.heading, each) for each in COUNTS])],
    [flatters(USED_SEEN, USED_HELD_OUT, name) for name in COUNTED]
    + [flatters(USED_WINDOW, USED_CROPS, name) for name in (SIMVQ, VQ_REPLACED, FSQ, GUMBEL)],
)
