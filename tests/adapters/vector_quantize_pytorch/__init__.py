"""The classes of vector-quantize-pytorch, and the contracts that replace them."""
