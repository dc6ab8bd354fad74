"""The contracts of audio codecs and speech models."""
