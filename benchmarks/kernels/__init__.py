"""The nearest code and a whole training step, against other libraries: `python -m benchmarks kernels`.

shapes.py                how many vectors and codes of how many channels; the vectors
rivals.py                one search, by ours and by the others
gemm.py                  the matrix product that a search contains, alone
steps.py                 one training step, by ours and by the main peer
timing.py                rivals in turns; medians and spreads
memory.py                the high-water mark of a process of its own
exactness.py             wrong indices, judged in float64
growth.py                time against N, K and D
floors.py                what an H200 needs at least
bars.py                  what the project asks of itself, met or not
run.py                   the command's work: these pieces in order
report.py, plots.py      tables, JSON, Markdown; the picture
"""
