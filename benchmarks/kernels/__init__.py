"""The nearest-code search and a whole training step, against other libraries: `python -m benchmarks kernels`.

shapes.py                sizes of a search, and random vectors of those sizes
rivals.py                one search, by this library and by others
gemm.py                  the matrix product that a search contains, alone
steps.py                 one training step, by this library and by the main peer
motion.py                a codebook that moves between two runs, as in training
timing.py                interleaved timing; medians and spreads
memory.py                peak memory, measured in a separate process
exactness.py             wrong indices, judged in float64
growth.py                time against N, K and D
real.py, latents.py      latents and patches of photographs as data sets, from brief trainings
floors.py                lower bounds for an H100 or H200
requirements.py          what a requirement is
bars.py                  the project's requirements, and whether they are met
results.py               the measurements of a run
run.py                   the command: all measurements in order
report.py, plots.py      tables, JSON and Markdown; the picture
summary.py               the table in README.md
"""
