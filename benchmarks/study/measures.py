"""The numbers that tables and comparisons use: fields of a StoredResult, or derived from one."""

from dataclasses import dataclass

from benchmarks.training import USAGE_WINDOW


@dataclass(frozen=True)
class Measure:
    """A number of a training: its heading, key and format, and a scale factor for display.

    If `may_be_never`, null means that the event never happened, such as the step at which an error is reached.
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
# Four ways to count the used codes. The last two count from zero after training.
USED_SEEN = Measure("in any training step", "utilization_seen", ".1f", 100)
USED_WINDOW = Measure(f"in the last {USAGE_WINDOW} training steps", "utilization_window", ".1f", 100)
USED_CROPS = Measure("from zero on training photographs", "utilization_crops", ".1f", 100)
USED_HELD_OUT = Measure("from zero on held-out photographs", "utilization", ".1f", 100)
PSNR_WINDOW = Measure(f"PSNR in dB, last {USAGE_WINDOW} training steps", "psnr_db_window", ".2f")
PSNR_CROPS = Measure("in evaluation, training photographs", "psnr_db_crops", ".2f")
GAP = Measure("training minus evaluation", "gap_db", ".2f")
PSNR_HELD_OUT = Measure("in evaluation, held-out photographs", "psnr_db", ".2f")
