"""Code that the adapters of several contracts share."""
