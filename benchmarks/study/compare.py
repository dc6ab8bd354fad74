"""Evaluate a comparison on the record, seed by seed."""

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.study.effects import Comparison, Setting
from benchmarks.study.measures import Measure

Numbers = dict[str, Any]


def at(record: dict[str, Any], setting: Setting) -> dict[int, Numbers]:
    """Return the setting's trainings by seed, in the order of the seeds."""
    found = {
        point["seed"]: point
        for point in record["points"]
        if (point["quantizer"], point["asked_codebook_size"], point["dim"])
        == (setting.quantizer, setting.codebook_size, setting.dim)
    }
    return dict(sorted(found.items()))


def values(record: dict[str, Any], setting: Setting, measure: Measure) -> dict[int, float]:
    """Return the measure of each seed that has it, in displayed units; infinity for "never"."""
    have = {seed: point[measure.key] for seed, point in at(record, setting).items() if measure.key in point}
    if measure.may_be_never:
        have = {seed: math.inf if number is None else number for seed, number in have.items()}
    known = {seed: number for seed, number in have.items() if number is not None and not math.isnan(number)}
    return {seed: measure.scale * number for seed, number in known.items()}


def differences(record: dict[str, Any], comparison: Comparison) -> list[float]:
    """Return greater − lesser for each seed that has both numbers."""
    greater = values(record, comparison.greater, comparison.measure)
    lesser = values(record, comparison.lesser, comparison.lesser_measure or comparison.measure)
    both = [(greater[seed], lesser[seed]) for seed in greater if seed in lesser]
    return [0.0 if a == b else a - b for a, b in both]  # two seeds that never get there count as equal


def verdict(found: Sequence[float], asked: int) -> str:
    """State whether the sentence holds, by the signs of the differences alone. `asked` is the requested number of
    seeds.
    """
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
