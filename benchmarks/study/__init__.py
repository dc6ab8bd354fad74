"""Do the effects that the papers claim show here? The same small autoencoder, many quantizers, several seeds.

questions/   the seven, each with what is trained, shown and compared
effects.py   what they consist of
measures.py  the numbers that they look at
measure.py   one training, and what is counted of it
run.py       all of them, several processes at a time, stored as they finish
progress.py  what a person sees meanwhile
curves.py    errors over the training
compare.py   what the numbers say to a comparison, seed by seed
report.py    JSON; tables from it
plots.py     pictures from it
"""
