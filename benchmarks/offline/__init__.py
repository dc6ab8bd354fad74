"""Codebooks fitted offline: k-means and its residual and product forms, compared with faiss and scikit-learn.

cells.py             what is measured: data, N, D, K and the kind of codebook
patches.py, features.py, text.py, vectors.py     the vectors, written once as .npy files
faiss_fits.py, sklearn_fits.py, our_fits.py      each contender as its users call it
contenders.py        the registry of contenders
child.py, processes.py, tasks.py     each run is a process of its own
run.py, stored.py    rounds, budget, and the results on disk
summary.py, bars.py  medians, times to reach an inertia, verdicts
report.py, plots.py  tables, JSON and picture
"""
