"""Codebooks fitted to vectors without an autoencoder."""
