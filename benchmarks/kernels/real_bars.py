"""The project's performance requirements on real data and beside busy processes."""

from collections.abc import Callable, Iterable, Sequence

from benchmarks.kernels.pruned import ALL_CODES, EVALUATION, FIRST, TRAINING
from benchmarks.kernels.real import NORMAL, SIMVQ_LATENTS, VQ_LATENTS
from benchmarks.kernels.requirements import Bar, bar, exact, memory, speed
from benchmarks.kernels.results import RealRow, Row, Slowdown
from benchmarks.kernels.rivals import FAISS

FEW_CHANNELS, MANY_CODES = 8, 8192


def real_bars(rows: Sequence[RealRow]) -> list[Bar]:
    """Judge searches on the data sets of real.py."""
    many = [row for row in rows if row.data == VQ_LATENTS and row.shape.k >= MANY_CODES]
    simvq = [row for row in rows if row.data == SIMVQ_LATENTS]
    normal = [row for row in rows if row.data == NORMAL and row.shape.d <= FEW_CHANNELS]
    product = "times as fast as the bare matrix product"
    both = (EVALUATION, TRAINING)
    return [
        speed(f"VQ latents, K ≥ 8192, evaluation: at least 5 {product}", 5, many, _lead_on_product(EVALUATION)),
        speed(f"VQ latents, K ≥ 8192, training: at least 3 {product}", 3, many, _lead_on_product(TRAINING)),
        speed(f"SimVQ latents: at least 1.5 {product}", 1.5, simvq, _lead_on_product(*both)),
        speed(f"N(0, 1), D ≤ 8: at least 1.3 {product}", 1.3, normal, _lead_on_product(*both)),
        _all_codes(rows),
        memory("real data: peak memory of a first call at most 64 MiB + 8(N + K)D bytes", rows, [FIRST]),
        exact(
            "real data: no wrong index",
            [(share, row.where) for row in rows for share in (row.wrong, row.different) if share is not None],
        ),
    ]


def load_bar(rows: Iterable[Slowdown]) -> Bar:
    """Judge what searches lose, in a part of a run of its own."""
    factors = {row.rival: row.factor for row in rows}
    shares = [
        (factors[name] / factors[FAISS], name) for name in (TRAINING, ALL_CODES) if {name, FAISS} <= factors.keys()
    ]
    requirement = "beside busy processes: a search slows down at most 1.05 times as much as faiss"
    return bar(requirement, max(shares, default=None), "x", lambda value: value <= 1.05)


def _lead_on_product(*names: str) -> Callable[[Row], float | None]:
    """Return the ratio of the bare product's time to the slowest of ours."""

    def ratio(row: Row) -> float | None:
        if not row.gemm or not row.times.keys() >= set(names):
            return None
        return row.times[row.gemm].median / max(row.times[name].median for name in names)

    return ratio


def _all_codes(rows: Iterable[RealRow]) -> Bar:
    shares = [
        (row.times[name].median / row.times[ALL_CODES].median, f"{row.where}, {name}")
        for row in rows
        for name in (EVALUATION, TRAINING)
        if row.times.keys() >= {name, ALL_CODES}
    ]
    requirement = "real data: at most 1.05 times the time of comparing all codes"
    return bar(requirement, max(shares, default=None), "x", lambda value: value <= 1.05)
