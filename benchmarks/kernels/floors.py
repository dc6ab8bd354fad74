"""The least time that an H100 or H200 needs for a search according to its peak rates, as a reference for measured
times."""

from benchmarks.kernels.shapes import Shape

DEVICES = ("H100", "H200")  # accelerators with the rates below, which differ in memory alone
SLOWER = ("PCIe", "NVL")  # variants with fewer multiprocessors or lower clocks
RATES = {
    "tf32x3": 495e12 / 3,
    "tf32": 495e12,
    "bf16": 790e12,
}  # flops per second: a third of tf32's peak, bf16 as sustained
DEPTH = 16  # channels that a matrix unit processes at once; fewer are padded
INSTRUCTIONS_PER_PAIR = 2.2  # the fewest in the search's main loop, at 8 channels, per pair of vector and code
ISSUE_RATE = 132 * 4 * 32 * 1.98e9  # single-thread instructions per second: multiprocessors, schedulers, lanes, Hz


def has_floors(accelerator: str) -> bool:
    """Return whether the rates are those of the accelerator with this name, as the driver gives it."""
    return any(name in accelerator for name in DEVICES) and not any(name in accelerator for name in SLOWER)


def floors_ms(shape: Shape) -> dict[str, float]:
    """Return milliseconds by kind of product: the larger of the matrix units' and the instruction issue's time."""
    pairs = shape.n * shape.k
    padded = -(-shape.d // DEPTH) * DEPTH
    issue = pairs * INSTRUCTIONS_PER_PAIR / ISSUE_RATE
    return {kind: 1000 * max(2 * pairs * padded / rate, issue) for kind, rate in RATES.items()}
