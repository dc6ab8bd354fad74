"""Quantizers that round each channel independently, on an implicit grid of codes."""
