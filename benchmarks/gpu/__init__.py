"""The kernels on a CUDA device, in stages that stop early and always leave a report: `python -m benchmarks gpu`.

stages.py, registry.py   what a stage is; the stages in order
smoke.py                 every kernel once, against the reference in float64
exact.py                 wrong indices, rows left to the exhaustive search, the error of sums in a matrix unit
units.py                 how a matrix unit adds, measured directly
speed.py                 times of searches and training steps; contenders.py lists what is timed
others.py                what is built on them: tuning, several nearest codes, k-means, make bench
flash.py                 flash-kmeans beside them, where it is installed
host.py, graphs.py       waits, launches and variants of kernels; CUDA graphs
profiling.py             the kernels of one call and their times
suites.py                the tests that need a device
tiles.py                 times of the search's loop in other tile sizes, on request
implementations.py       the one place that knows where the kernels are
compiling.py             which kernels were compiled, and in how many seconds
run.py                   the command: all stages in order, the report after every part
processes.py, child.py   the processes of a stage, and what runs in one
times.py, goals.py       what a report says of searches and steps; the goals, each met, missed or not measured
report.py, findings.py   tables; what to look at first
summary.py               the table of docs/results/speed.md
"""
