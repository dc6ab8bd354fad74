"""Numbers as the cells of tables."""

from benchmarks.sheets import NOTHING


def milliseconds(value: float) -> str:
    """Format with three digits."""
    decimals = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}"


def percent(share: float | None) -> str:
    """Format with three digits, without rounding anything to zero."""
    if share is None:
        return NOTHING
    return "0" if share == 0 else f"{100 * share:.3g}"


def times_as(ratio: float) -> str:
    return f"{ratio:.{2 if ratio < 10 else 0}f}x"
