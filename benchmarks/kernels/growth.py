"""How the time of a search grows with N, K and D, one at a time with the others as in BASE."""

from dataclasses import replace

from benchmarks.kernels import gemm, rivals
from benchmarks.kernels.shapes import Shape

BASE = Shape(8192, 2048, 32)
SIZES = {
    "n": (1024, 4096, 8192, 16384, 65536),
    "k": (128, 512, 2048, 8192, 32768),
    "d": (4, 8, 16, 32, 64, 128, 256),
}
DRAWN = (rivals.OURS, rivals.CDIST, rivals.FAISS, rivals.FLASH, gemm.MM, gemm.ONEDNN)
BUDGET_S = 0.5  # per rival and shape


def shapes() -> list[Shape]:
    """Return every shape of the three panels, without duplicates."""
    lines = [line(axis) for axis in SIZES]
    return list(dict.fromkeys(shape for shapes in lines for shape in shapes))


def line(axis: str) -> list[Shape]:
    """Return the shapes of one panel: "n", "k" or "d"."""
    return [replace(BASE, **{axis: size}) for size in SIZES[axis]]
