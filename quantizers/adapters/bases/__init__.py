"""What the adapters of several contracts share."""
