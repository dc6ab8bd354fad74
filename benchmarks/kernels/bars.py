"""The project's performance requirements, checked against the measurements: each met or not, with the worst
number.
"""

from collections.abc import Callable, Iterable, Sequence

from benchmarks.kernels.pruned import ALL_CODES, EVALUATION, FIRST, TRAINING
from benchmarks.kernels.real_bars import load_bar, real_bars
from benchmarks.kernels.requirements import Bar, bar, exact, lead, memory, speed
from benchmarks.kernels.results import RealRow, Row, Slowdown, Wrong
from benchmarks.kernels.rivals import CDIST, FAISS, OURS, OURS_HIGH, OURS_MEDIUM, PEER, SKLEARN
from benchmarks.kernels.steps import EMA, PEER_EMA, PEER_VQ, VQ

MANY_CHANNELS = 16
MATRIX_CHANNELS = 32  # from this width on, a search is compared with the bare matrix product


def judge(
    search: list[Row],
    step: list[Row],
    exactness: list[Wrong],
    device_type: str,
    *,
    real: Sequence[RealRow] = (),
    load: Sequence[Slowdown] = (),
) -> list[Bar]:
    """Check all requirements. Those on the time of a search differ between a CPU and a GPU."""
    on_cpu = device_type == "cpu"
    return [
        *(_cpu_bars(search) if on_cpu else _gpu_bars(search)),
        speed("training step, VQ: at least 5 times as fast as the main peer", 5, step, lead(VQ, PEER_VQ)),
        speed("training step, EMA VQ: at least 5 times as fast as the main peer", 5, step, lead(EMA, PEER_EMA)),
        memory("peak memory of a search at most 64 MiB + 8(N + K)D bytes", search, [OURS]),
        memory("peak memory of a training step at most 64 MiB + 8(N + K)D bytes", step, [VQ, EMA]),
        exact(
            "no wrong index in any data set",
            [(row.shares[OURS], row.data) for row in exactness if OURS in row.shares],
        ),
        *([*real_bars(real), load_bar(load)] if on_cpu else []),
        _runs([*search, *step, *exactness, *real]),
    ]


def _cpu_bars(search: list[Row]) -> list[Bar]:
    few = [row for row in search if row.shape.d < MANY_CHANNELS]
    many = [row for row in search if row.shape.d >= MANY_CHANNELS]
    wide = [row for row in search if row.shape.d >= MATRIX_CHANNELS]
    others = "the fastest of faiss, scikit-learn, cdist and the main peer"
    return [
        speed(f"search, D < 16: at least as fast as {others}", 1, few, _lead_in_search),
        speed(f"search, D ≥ 16: at least 1.5 times as fast as {others}", 1.5, many, _lead_in_search),
        _bare_product(wide),
    ]


def _gpu_bars(search: list[Row]) -> list[Bar]:
    return [
        *(
            speed(f"search, {kind}: at least half as fast as its floor", 0.5, search, _share_of_floor(name, kind))
            for name, kind in ((OURS, "tf32x3"), (OURS_HIGH, "tf32"), (OURS_MEDIUM, "bf16"))
        ),
        speed("search: at least 5 times as fast as cdist + argmin", 5, search, lead(OURS, CDIST)),
    ]


def _share_of_floor(name: str, kind: str) -> Callable[[Row], float | None]:
    """Return the ratio of a floor to a search's time, on an accelerator with known rates."""

    def share(row: Row) -> float | None:
        return row.floors[kind] / row.times[name].median if kind in row.floors and name in row.times else None

    return share


def _lead_in_search(row: Row) -> float | None:
    return lead(OURS, FAISS, SKLEARN, CDIST, PEER)(row)


def _bare_product(rows: Iterable[Row]) -> Bar:
    shares = [
        (row.times[OURS].median / row.times[row.gemm].median, str(row.shape))
        for row in rows
        if row.gemm and OURS in row.times
    ]
    requirement = "search, D ≥ 32: at most 1.3 times the bare matrix product's time"
    return bar(requirement, max(shares, default=None), "x", lambda value: value <= 1.3)


def _runs(rows: list[Row | Wrong]) -> Bar:
    """Require that no measurement of this library failed. The other requirements see only what was measured."""
    failed = [
        name
        for row in rows
        for name in row.failures
        if name in (OURS, VQ, EMA, ALL_CODES, EVALUATION, TRAINING, FIRST)
    ]
    worst = (float(len(failed)), ", ".join(dict.fromkeys(failed)) or "everywhere") if rows else None
    return bar(
        "this library runs at every shape and on every data set", worst, "failures", lambda value: value == 0
    )
