"""The stages, in the order in which they run.

Their limits leave 110 of the command's 480 seconds to the tests. On an H200 with 16 cores the stages took 27, 23,
152 and 50 seconds, and half of what "speed" took was for one step of a Gumbel quantizer that it no longer times.
What it times in addition should take it another minute.
"""

import math

from benchmarks.gpu import exact, smoke, speed, suites, tiles
from benchmarks.gpu.stages import Stage

STAGES = {
    stage.name: stage
    for stage in (
        Stage("smoke", 60, smoke.phases, smoke.run),
        Stage("exact", 70, exact.phases, exact.run),
        Stage("speed", 240, speed.phases, speed.run),
        Stage("tests", math.inf, suites.phases, suites.run),
        Stage("tiles", 120, tiles.phases, tiles.run),
    )
}
ON_REQUEST = ("tiles",)  # stages that run only if they are named
