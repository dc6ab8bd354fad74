"""(e) Gumbel-softmax and its temperature."""

from benchmarks.study.effects import Column, Comparison, Effect, Setting, Table
from benchmarks.study.measures import GAP, PERPLEXITY, PSNR, PSNR_CROPS, PSNR_HELD_OUT, PSNR_WINDOW, USED, Measure
from benchmarks.study.questions.variants import GUMBEL

HARD = "gumbel:hard=True"
CONSTANT = tuple(f"gumbel:anneal=None:temperature={each}" for each in (2.0, 1.0, 0.5, 0.125))
HALFWAY = "gumbel:anneal=(1,0.5)"


def _above(sentence: str, measure: Measure, greater: str, lesser: str) -> Comparison:
    return Comparison(sentence, measure, Setting(greater), Setting(lesser))


TEMPERATURE = Effect(
    "e",
    "Gumbel-softmax and its temperature",
    "A relaxed sample at a high temperature is a mixture of codes, which evaluation does not have: the lower the "
    "temperature at the end, the smaller the gap between them (Jang et al. 2016; Ramesh et al. 2021 go from 1 to "
    "1/16).",
    [
        Table(
            "Quality in training and after it, by temperature",
            (*CONSTANT, HALFWAY, GUMBEL, HARD),
            [
                Column(each.heading, each)
                for each in (PSNR_WINDOW, PSNR_CROPS, GAP, PSNR_HELD_OUT, USED, PERPLEXITY)
            ],
        )
    ],
    [
        _above("Training flatters more at a constant 2 than at 1", GAP, CONSTANT[0], CONSTANT[1]),
        _above("Training flatters more at a constant 1 than at 1/8", GAP, CONSTANT[1], CONSTANT[3]),
        _above("Training flatters more annealed to 1/2 than to 1/16", GAP, HALFWAY, GUMBEL),
        _above("Annealing to 1/2 is better than a constant 1/2", PSNR, HALFWAY, CONSTANT[2]),
        _above("Annealing to 1/16 is better than a constant 1", PSNR, GUMBEL, CONSTANT[1]),
        _above("Annealing to 1/16 is better than a constant 1/8", PSNR, GUMBEL, CONSTANT[3]),
        _above("Annealing to 1/2 is better than to 1/16", PSNR, HALFWAY, GUMBEL),
        _above("Relaxed samples are better than hard ones", PSNR, GUMBEL, HARD),
    ],
)
