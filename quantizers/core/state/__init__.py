"""The state of a quantizer: parameters and buffers, their precision, how they are set and loaded."""
