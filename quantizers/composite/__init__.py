"""Quantizers that are made of quantizers."""
