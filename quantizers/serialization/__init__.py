"""Quantizers as configurations, folders and repositories of the Hugging Face hub."""
