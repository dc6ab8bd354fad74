"""What the record says to a comparison, seed by seed."""

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.study.effects import Comparison, Setting
from benchmarks.study.measures import Measure

Numbers = dict[str, Any]


def at(record: dict[str, Any], setting: Setting) -> dict[int, Numbers]:
    """The setting's trainings, by seed, in the order of the seeds."""
    found = {
        point["seed"]: point
        for point in record["points"]
        if (point["quantizer"], point["asked_codebook_size"], point["dim"])
        == (setting.quantizer, setting.codebook_size, setting.dim)
    }
    return dict(sorted(found.items()))


def values(record: dict[str, Any], setting: Setting, measure: Measure) -> dict[int, float]:
    """The measure of each seed that has it, as it is shown."""
    numbers = {seed: point[measure.key] for seed, point in at(record, setting).items()}
    return {seed: measure.scale * n for seed, n in numbers.items() if n is not None and math.isfinite(n)}


def differences(record: dict[str, Any], comparison: Comparison) -> list[float]:
    """Greater − lesser, for each seed that has both."""
    greater = values(record, comparison.greater, comparison.measure)
    lesser = values(record, comparison.lesser, comparison.lesser_measure or comparison.measure)
    return [greater[seed] - lesser[seed] for seed in greater if seed in lesser]


def verdict(found: Sequence[float], asked: int) -> str:
    """Whether the sentence holds, by the signs of the seeds' differences alone; `asked` seeds were to be there."""
    if len(found) < asked:
        return f"open: measured in {len(found)} of {asked} seeds"
    seeds = "in the one seed" if asked == 1 else f"in all {asked} seeds"
    if all(each > 0 for each in found):
        return f"yes, {seeds}"
    if all(each < 0 for each in found):
        return f"no, the opposite {seeds}"
    if not any(found):
        return f"no, equal {seeds}"
    return f"open: in {sum(each > 0 for each in found)} of {asked} seeds"
