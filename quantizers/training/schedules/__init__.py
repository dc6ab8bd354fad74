"""Schedules that change a number of a quantizer once per training step.

A temperature, a weight of its loss, the decay of its moving averages, or its hardness.
"""

from quantizers.training.schedules.base import ModuleSchedule, Schedule
from quantizers.training.schedules.decay import CosineDecay, DecaySchedule
from quantizers.training.schedules.hardness import CosineHardness, HardnessSchedule, LinearHardness
from quantizers.training.schedules.temperature import (
    CosineTemperature,
    ExponentialTemperature,
    TemperatureSchedule,
)
from quantizers.training.schedules.weights import (
    CommitmentSchedule,
    CosineCommitment,
    CosineEntropy,
    EntropySchedule,
    LinearCommitment,
    LinearEntropy,
    WeightSchedule,
)

__all__ = [
    "CommitmentSchedule",
    "CosineCommitment",
    "CosineDecay",
    "CosineEntropy",
    "CosineHardness",
    "CosineTemperature",
    "DecaySchedule",
    "EntropySchedule",
    "ExponentialTemperature",
    "HardnessSchedule",
    "LinearCommitment",
    "LinearEntropy",
    "LinearHardness",
    "ModuleSchedule",
    "Schedule",
    "TemperatureSchedule",
    "WeightSchedule",
]
