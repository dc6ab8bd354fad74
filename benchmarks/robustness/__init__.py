"""What a training can meet, and who survives it: `python -m benchmarks robustness`.

subjects.py    a quantizer of ours, or of the main peer, behind the few calls that the checks make
checks.py      one function for each thing that can happen
run.py         every check on every subject, each freshly built
report.py      table, Markdown, JSON
"""
