"""The whole chain around a quantizer: VQ-VAE, a prior over its codes, samples, and codes as bytes.

settings.py          what decides a training's result
sources.py           digits and photographs: what is trained on, what is held out
checkpoints.py       one file a model, written whole; what can be wrong with one, in sentences
loop.py              training that goes on where it was stopped, with the same result
levels.py            VQ-VAE and VQ-VAE-2 in one form: a tuple of code maps
reconstruction.py    the autoencoder: trained, measured
priors.py            a prior for each level of codes
draws.py             codes drawn from the priors, decoded
coding.py            codes to bytes with the priors' probabilities, and back
formats.py           PNG, JPEG and WebP of the same images
rates.py             bits per pixel of all of these
generative.py        samples of autoencoder, VAE and VQ-VAE with a prior, beside each other
pictures.py          PNG files to look at
report.py            tables, Markdown, JSON
progress.py          bars on the terminal
run.py               all of it in order
"""
