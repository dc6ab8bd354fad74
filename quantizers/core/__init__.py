"""What every quantizer stands on: the interface, its state, its arguments, gradients, ranks."""
