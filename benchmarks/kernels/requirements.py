"""What a requirement is, and the kinds that there are: each is judged by its worst measurement."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.kernels.results import Row


@dataclass(frozen=True)
class Bar:
    """One requirement.

    met     None without a measurement that could decide it
    number  the worst value over the shapes or data sets, in `unit`
    where   the shape or data set of the worst value
    """

    requirement: str
    met: bool | None
    number: float | None
    unit: str
    where: str


def bar(requirement: str, worst: tuple[float, str] | None, unit: str, is_met: Callable[[float], bool]) -> Bar:
    """Judge the worst value, which comes with where it was measured; None if nothing was."""
    if worst is None:
        return Bar(requirement, None, None, unit, "not measured")
    number, where = worst
    return Bar(requirement, is_met(number), number, unit, where)


def lead(ours: str, *others: str) -> Callable[[Row], float | None]:
    """Return the ratio of the fastest measured other time to ours."""

    def ratio(row: Row) -> float | None:
        times = [row.times[name].median for name in others if name in row.times]
        return min(times) / row.times[ours].median if times and ours in row.times else None

    return ratio


def speed(requirement: str, least: float, rows: Iterable[Row], ratio: Callable[[Row], float | None]) -> Bar:
    """Require that a ratio is at least so large in every row that has one."""
    leads = [(value, row.where) for row in rows if (value := ratio(row)) is not None]
    return bar(requirement, min(leads, default=None), "x", lambda value: value >= least)


def memory(requirement: str, rows: Iterable[Row], names: list[str]) -> Bar:
    """Require that the named rivals take no more memory than a row allows."""
    shares = [
        (100 * taken / row.allowance, f"{row.shape}, {name}")
        for row in rows
        for name in names
        if (taken := row.memory.get(name)) is not None
    ]
    return bar(requirement, max(shares, default=None), "% of that", lambda value: value <= 100)


def exact(requirement: str, shares: Iterable[tuple[float, str]]) -> Bar:
    """Require that the share of wrong indices is zero everywhere."""
    percents = [(100 * share, where) for share, where in shares]
    return bar(requirement, max(percents, default=None), "%", lambda value: value == 0)
