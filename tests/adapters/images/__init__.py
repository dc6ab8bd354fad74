"""Image tokenizers: models, stand-ins, and the contracts of their quantizers."""
