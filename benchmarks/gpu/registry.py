"""The stages, in the order in which they run.

What is right comes first, and "speed" gets what is left of the command's time, with the goals first and the
largest shapes first. On an H200 with 16 cores, before much was added, "smoke" took 27 seconds, "exact" 23, and
845 tests, of which there are 1096 now, 50. Of "speed", compiling took 25, the searches 50, and the steps at a
shape 2. From these, its parts should now take: compiling 30, searches 55, steps 25, the peer's steps 25, their
graphs 35, host and kernels 20, make bench 40, and the rest 45. If every other stage takes all of its time, 190
seconds of 440 are left: enough for all that belongs to a goal but make bench.
"""

import math

from benchmarks.gpu import exact, smoke, speed, suites, tiles
from benchmarks.gpu.stages import Stage

STAGES = {
    stage.name: stage
    for stage in (
        Stage("smoke", 60, smoke.phases, smoke.run),
        Stage("exact", 70, exact.phases, exact.run),
        Stage("tests", 120, suites.phases, suites.run),
        Stage("speed", math.inf, speed.phases, speed.run),
        Stage("tiles", 120, tiles.phases, tiles.run),
    )
}
ON_REQUEST = ("tiles",)  # stages that run only if they are named
