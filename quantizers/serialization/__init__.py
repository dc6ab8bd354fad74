"""Quantizers as configurations, in folders, and in repositories on the Hugging Face hub."""
