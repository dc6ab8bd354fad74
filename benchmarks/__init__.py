"""What is measured, on what, against whom: `python -m benchmarks --help` from the repository root.

    data.py, crops.py        photographs; training batches and held-out tiles cut from them
    digits.py                scikit-learn's handwritten digits, 8 × 8
    autoencoder.py           the one small model that every quantizer is put into
    models/                  VQ-VAE, VQ-VAE-2, and what they are compared with, one model a file
    variants.py              quantizers by name, with options
    training.py              the one recipe: batches, optimiser, loss, temperature
    evaluation.py, cost.py   held-out quality and code statistics; time and memory
    parts.py                 finished quantizers on disk, so that a run can be continued
    utilization.py           the command's work: these pieces in order
    sweep/                   the same over codebook size, latent channels and learning rate: a command of its own
    kernels/                 the search and a training step against other libraries: a command of its own
    chain/                   VQ-VAE, prior, samples, codes as bytes: commands of their own, and one for all of it
    report.py, plots.py      table, JSON, Markdown; pictures
    machine.py, files.py     where and with what a number was measured; atomic writing
    cli/, __main__.py         the command line: a file for each command

Not installed with the library. Needs the extra `quantizers-torch[bench]`.
"""
