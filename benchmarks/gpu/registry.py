"""The stages, in the order in which they run."""

import math

from benchmarks.gpu import exact, smoke, speed, suites
from benchmarks.gpu.stages import Stage

STAGES = {
    stage.name: stage
    for stage in (
        Stage("smoke", 60, smoke.phases, smoke.run),
        Stage("exact", 90, exact.phases, exact.run),
        Stage("speed", 150, speed.phases, speed.run),
        Stage("tests", math.inf, suites.phases, suites.run),
    )
}
