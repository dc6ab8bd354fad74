"""The whole chain around a quantizer: VQ-VAE, a prior over its codes, samples, and compressed codes.

settings.py            everything that determines a training's result
sources.py             digits and photographs: training and held-out images
checkpoints.py         one file per model, written atomically; sentences for unusable files
loop.py                training that resumes after an interruption with the same result
levels.py              VQ-VAE and VQ-VAE-2 behind one interface: a tuple of code maps
reconstruction.py      the autoencoder: training and measurement
priors.py              a prior for each level of codes
draws.py               codes sampled from the priors, decoded
coding.py              codes compressed with the priors' probabilities, and decompressed
formats.py             PNG, JPEG and WebP of the same images
rates.py               bits per pixel of all of these
generative.py          samples of an autoencoder, a VAE and a VQ-VAE with a prior, for comparison
comparison_settings.py settings of the comparison of four priors
multiscale.py          the multi-scale autoencoder of the comparison
scale_usage.py         the codes that each of its scales uses
comparison_training.py the masked and the next-scale prior: training
candidates.py          the four priors behind one interface
comparison.py          their bits, samples and seconds per image
comparison_sheets.py   the tables of the comparison
text_stage.py          a prior over captions and codes: training, bits and samples
text_samples.py        digits sampled for captions, and how well they follow them
text_report.py         the tables of captions
pictures.py            PNG files to look at
report.py              tables, Markdown and JSON
progress.py            progress bars on the terminal
stages.py              the stages as the commands call them
run.py                 all stages in order, then the comparison
"""
