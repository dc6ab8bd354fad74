"""Quantizers in models that exist: the real ones, and stand-ins for those that no package holds."""
