"""The numbers that the study looks at: of a Part, and derived from one."""

from dataclasses import dataclass

from benchmarks.training import USAGE_WINDOW


@dataclass(frozen=True)
class Measure:
    """A number of a training: heading, its key, how it is written, and by what it is multiplied before.

    Of one that may never come about, as a step at which something is reached, null means that it did not.
    """

    heading: str
    key: str
    form: str
    scale: float = 1.0
    may_be_never: bool = False


USED = Measure("codes used in %", "utilization", ".1f", 100)
PERPLEXITY = Measure("perplexity", "perplexity", ".0f")
PSNR = Measure("PSNR in dB", "psnr_db", ".2f")
QUANTIZATION_ERROR = Measure("quantization error, 10⁻³", "quantization_error", ".1f", 1000)
LATENT_ERROR = Measure("its share of the variance", "latent_error", ".3f")
STEPS_TO_VQ = Measure("steps", "steps_to_vq", ".0f", may_be_never=True)
USED_ON_TRAINING = Measure("codes used in % on training photographs", "utilization_crops", ".1f", 100)
# Four ways to count them; the last two count from zero after training.
USED_SEEN = Measure("in any training step", "utilization_seen", ".1f", 100)
USED_WINDOW = Measure(f"in the last {USAGE_WINDOW} training steps", "utilization_window", ".1f", 100)
USED_CROPS = Measure("from zero on training photographs", "utilization_crops", ".1f", 100)
USED_HELD_OUT = Measure("from zero on held-out photographs", "utilization", ".1f", 100)
PSNR_WINDOW = Measure(f"PSNR in dB, last {USAGE_WINDOW} training steps", "psnr_db_window", ".2f")
PSNR_CROPS = Measure("in evaluation, training photographs", "psnr_db_crops", ".2f")
GAP = Measure("training minus evaluation", "gap_db", ".2f")
PSNR_HELD_OUT = Measure("in evaluation, held-out photographs", "psnr_db", ".2f")
