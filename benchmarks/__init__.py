"""Benchmarks of the quantizers. Run `python -m benchmarks --help` from the repository root.

    data.py, crops.py        photographs; training batches and held-out tiles cut from them
    digits.py                scikit-learn's handwritten digits, 8 × 8
    autoencoder.py           the small model that every quantizer is placed in
    models/                  VQ-VAE, VQ-VAE-2 and the models they are compared with, one model per file
    variants.py              quantizers by name, with options
    training.py              the shared recipe: batches, optimizer, loss, temperature
    evaluation.py, cost.py   held-out quality and code statistics; time and memory
    stored_results.py        finished results on disk, so that a run can be resumed
    utilization.py           the utilization benchmark: trains and measures each quantizer
    sweep/                   the same over codebook size, latent channels and learning rate
    kernels/                 the nearest-code search and a training step against other libraries
    devices/                 three ways to an exact search without float64: `python -m benchmarks.devices`
    offline/                 codebooks fitted offline, against faiss and scikit-learn
    gpu/                     the kernels on a CUDA device, in stages: right, exact, fast, tested
    chain/                   VQ-VAE, prior, samples and compressed codes, as separate commands or all at once
    search/                  codes of equal length for search, semantic IDs and caches, against faiss
    versions/                the tests under several releases of PyTorch, Python and NumPy
    report.py, plots.py      table, JSON and Markdown; pictures
    machine.py, files.py     the machine and versions behind a measurement; atomic writing
    cli/, __main__.py        the command line, one file per command

The benchmarks are not installed with the library. They need the extra `quantizers-torch[bench]`. The libraries of
the extra `peers` are compared where they are installed, and chain/ compresses codes with the extra `codec`.
versions/ needs only rich and typer, and gpu/ also pytest and hypothesis for the tests that it runs.
"""
