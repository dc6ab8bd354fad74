"""Audio codecs and speech models, stand-ins, and the contracts of their quantizers."""
