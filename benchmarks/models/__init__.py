"""The models of the chain, one a file: autoencoders around a quantizer, and priors over its codes."""
