"""Codes of fixed length for compressed search and as semantic IDs, compared with those of faiss."""
