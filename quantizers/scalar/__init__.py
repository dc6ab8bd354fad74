"""Quantizers that round each channel by itself, on an implicit grid of codes."""
