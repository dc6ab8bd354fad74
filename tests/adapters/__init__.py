"""Quantizers plugged into existing models: real ones, and stand-ins for models that cannot be installed here."""
