"""Utilization, bits and PSNR against codebook size, latent dimension and learning rate.

grid.py      which trainings: one axis at a time through the centre, or all combinations run.py       runs them one
after the other and stores each result progress.py  progress on the terminal cuts.py      the points along one
axis, and means over seeds report.py    the JSON, and tables from it plots.py     pictures from the JSON
"""
