"""The least time that an H200 needs for a search, from its peak rates: what a measured time can be judged by."""

from benchmarks.kernels.shapes import Shape

DEVICE = "H200"  # the rates below are this accelerator's
RATES = {
    "tf32x3": 495e12 / 3,
    "bf16": 790e12,
}  # flops a second: tf32's peak a third of the time, bf16 as sustained
DEPTH = 16  # channels that a matrix unit takes at once; fewer are padded
INSTRUCTIONS_PER_PAIR = 4.75  # of the search's main loop, a vector and a code
ISSUE_RATE = (
    132 * 4 * 32 * 1.98e9
)  # instructions of single threads a second: multiprocessors, schedulers, lanes, Hz


def floors_ms(shape: Shape) -> dict[str, float]:
    """Milliseconds by kind of product: the larger of what the matrix units and the instruction issue need."""
    pairs = shape.n * shape.k
    padded = -(-shape.d // DEPTH) * DEPTH
    issue = pairs * INSTRUCTIONS_PER_PAIR / ISSUE_RATE
    return {kind: 1000 * max(2 * pairs * padded / rate, issue) for kind, rate in RATES.items()}
