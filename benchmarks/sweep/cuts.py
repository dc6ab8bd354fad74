"""The points along one axis of a sweep's record, and means over seeds."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

Numbers = dict[str, Any]

ASKED = {"codebook_size": "asked_codebook_size", "dim": "dim", "learning_rate": "learning_rate"}


class Mean(NamedTuple):
    """Mean, lowest and highest value over seeds."""

    mean: float
    lowest: float
    highest: float


def cut(record: dict[str, Any], name: str, axis: str) -> dict[float, list[Numbers]]:
    """Return a quantizer's points with all other axes at the centre: value -> one point per seed, in order."""
    centre = record["settings"]["centre"]
    others = [other for other in ASKED if other != axis]
    found: dict[float, list[Numbers]] = {}
    for point in record["points"]:
        here = point["quantizer"] == name and all(point[ASKED[other]] == centre[other] for other in others)
        if here:
            found.setdefault(point[ASKED[axis]], []).append(point)
    return dict(sorted(found.items()))


def mean(points: Sequence[Numbers], key: str, scale: float = 1.0) -> Mean | None:
    """Return the mean, or None if no point has a finite number (not measured, no codes, or diverged)."""
    return mean_of(
        [scale * point[key] for point in points if point[key] is not None and math.isfinite(point[key])]
    )


def mean_of(values: Sequence[float]) -> Mean | None:
    """Return the mean, or None for an empty list."""
    return Mean(sum(values) / len(values), min(values), max(values)) if values else None


def best(record: dict[str, Any], name: str, size: int, key: str) -> tuple[Mean, Numbers] | None:
    """Return the highest mean over seeds at one K, over all D and learning rates, and one of its points."""
    groups: dict[tuple[int, float], list[Numbers]] = {}
    for point in record["points"]:
        if point["quantizer"] == name and point["asked_codebook_size"] == size:
            groups.setdefault((point["dim"], point["learning_rate"]), []).append(point)
    found = [(value, group[0]) for group in groups.values() if (value := mean(group, key)) is not None]
    return max(found, key=lambda pair: pair[0].mean, default=None)
