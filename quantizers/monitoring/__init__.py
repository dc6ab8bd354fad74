"""How much of a codebook is used, measured and watched."""
