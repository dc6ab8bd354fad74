"""Quantizers that search a codebook of vectors."""
