"""The measures for questions about single settings."""

from benchmarks.study.effects import Column
from benchmarks.study.measures import LATENT_ERROR, PERPLEXITY, PSNR, QUANTIZATION_ERROR, USED

QUALITY = [Column(each.heading, each) for each in (PSNR, USED, PERPLEXITY, QUANTIZATION_ERROR, LATENT_ERROR)]
