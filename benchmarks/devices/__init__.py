"""The exact search on a device without float64: three ways to decide what float32 leaves open."""
