"""How quantizers behave under difficult inputs and conditions: `python -m benchmarks robustness`.

subjects.py    a quantizer of this library, or of the main peer, behind the few calls that the checks make
checks.py      the list of checks common.py      data and differences that several checks share garbage.py
checks of NaN vectors and of batches without valid vectors values.py      checks of codes, indices and precision
training.py    checks of compilation, export, recomputation and copies run.py         runs every check on every
subject, each freshly built report.py      table, Markdown and JSON
"""
