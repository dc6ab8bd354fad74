"""A model that exists, with its own quantizer and with one of ours: the swap is one line.

    python -m benchmarks.examples.image --quantizer fsq       # the VQModel of diffusers, on photographs
    python -m benchmarks.examples.audio --quantizer fsq       # the DacModel of transformers, on synthesised sounds

Both need the extras `bench` and `models`.
"""
