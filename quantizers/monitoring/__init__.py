"""Codebook use: its measures, a torchmetrics metric, and `watch`, which counts while a model runs."""
