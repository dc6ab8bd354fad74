"""The tests under several releases of PyTorch, Python and NumPy: `python -m benchmarks versions`.

    sets.py           the releases that are tested together
    parts.py          the tests that run, in parts
    environments.py   a virtual environment for each set
    junit.py          what pytest's results say
    testing.py        one part in one environment
    stored.py         results of earlier runs that still hold
    run.py            all sets, part by part
    report.py         JSON and tables
    page.py           the tables of docs/installing.md

Nothing here imports torch, numpy or quantizers: the tests import them, in processes of the environments.
"""
