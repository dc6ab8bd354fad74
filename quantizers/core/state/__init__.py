"""The state of a quantizer: parameters and buffers, their precision, how they are written and loaded."""
