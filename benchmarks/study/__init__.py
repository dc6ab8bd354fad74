"""Test effects that papers claim: the same small autoencoder with many quantizers and several seeds.

questions/   one file for each question, with its trainings, tables and comparisons
effects.py   the classes that describe a question
measures.py  the numbers that tables and comparisons use
measure.py   trains and measures one model
run.py       all trainings, several processes at a time, each result stored when finished
progress.py  progress on the terminal
curves.py    errors over the course of training
compare.py   evaluates a comparison, seed by seed
report.py    the JSON, and tables from it
plots.py     pictures from the JSON
"""
