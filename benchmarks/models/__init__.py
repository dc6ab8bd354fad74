"""The models of the chain, one per file: autoencoders around a quantizer, and priors over its codes."""
