"""The contracts of image tokenizers."""
