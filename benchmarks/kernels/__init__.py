"""The nearest-code search and a whole training step, against other libraries: `python -m benchmarks kernels`.

On random vectors:
shapes.py                sizes of a search, and random vectors of those sizes
rivals.py                one search, by this library and by others
gemm.py                  the matrix product that a search contains, alone
steps.py                 one training step, by this library and by the main peer
motion.py                a codebook that moves between two runs, as in training
timing.py                interleaved timing; medians and spreads
memory.py                peak memory, measured in a separate process
exactness.py             wrong indices, judged in float64
growth.py                time against N, K and D
floors.py                lower bounds for an H100 or H200

On latents and photographs, where most codes need not be compared:
real.py, latents.py      the data sets; brief trainings that make latents and codebooks
pruned.py                this library's search in evaluation, in training, anew, and with all codes
measure_real.py          searches, training steps, and time against the number of codes
load.py                  searches and steps beside processes that keep the cores busy

The results:
requirements.py          what a requirement is
bars.py, real_bars.py    the project's requirements, and whether they are met
results.py               the measurements of a run
run.py                   the command: all measurements in order
report.py, real_report.py, cells.py
                         tables, JSON and Markdown
plots.py, pruning_plot.py
                         the pictures
summary.py               the tables in docs/results/speed.md
"""
