"""The command `python -m quantizers`: codebooks fitted offline, from files to files."""
