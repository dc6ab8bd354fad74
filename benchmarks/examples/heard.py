"""What the encoder of the masked example hears: mel frames of synthesised speech in noise, some of them hidden."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.examples.utterances import SAMPLE_RATE, utterances
from benchmarks.examples.waves import BANDS, log_mel

STACKED = 4  # mel frames of 10 ms in a frame of the encoder
DIM = STACKED * BANDS
SECONDS = 2  # of an utterance
TRAINED, HELD_OUT = 256, 128  # utterances
SPAN, SHARE = 3, 0.12  # frames of a hidden span, 120 ms, and share of the frames at which one begins
HIDDEN = 0.1  # standard deviation of the noise in place of a hidden frame, as in the paper
QUIET, LOUD = 0.05, 0.3  # standard deviations of the noise in which speech with a peak of 0.8 is heard


class Corpus(NamedTuple):
    """Standardized mel frames [B, T, DIM] of speech in noise and of speech alone, and the vowel in each, int64
    [B, T], −1 for none.
    """

    noisy: Tensor
    clean: Tensor
    vowels: Tensor


@cache
def corpora(seed: int) -> tuple[Corpus, Corpus]:
    """Return speech to train on, which depends on the seed, and the held-out speech, which is the same for all."""
    trained, held_out = _drawn(TRAINED, seed), _drawn(HELD_OUT, 2**31)
    return _standardized(trained, trained), _standardized(held_out, trained)


def _standardized(corpus: Corpus, by: Corpus) -> Corpus:
    """Give frames the mean 0 and the variance 1 that each channel has in the corpus `by`."""
    noisy, clean = (
        (frames - of.mean((0, 1))) / of.std((0, 1)).clamp(min=1e-3)
        for frames, of in ((corpus.noisy, by.noisy), (corpus.clean, by.clean))
    )
    return Corpus(noisy, clean, corpus.vowels)


@cache
def _drawn(count: int, seed: int) -> Corpus:
    """Return mel frames in dB and vowels."""
    generator = torch.Generator().manual_seed(seed)
    sounds, vowels = utterances(count, SECONDS * SAMPLE_RATE, generator)
    noise = QUIET + (LOUD - QUIET) * torch.rand(count, 1, 1, generator=generator)
    noisy = sounds + noise * torch.randn(sounds.shape, generator=generator)
    return Corpus(_frames(noisy), _frames(sounds), vowels[:, 3::8])  # the vowel in the middle of each frame


def _frames(sounds: Tensor) -> Tensor:
    return log_mel(sounds).unflatten(1, (-1, STACKED)).flatten(2)


def masks(count: int, frames: int, generator: torch.Generator) -> Tensor:
    """Draw spans of SPAN frames that may overlap: bool [count, frames], at least one frame of each row True."""
    begins = torch.rand(count, frames, generator=generator)
    begins = (begins < SHARE) | (begins == begins.amin(1, keepdim=True))
    return F.max_pool1d(F.pad(begins.float(), (SPAN - 1, 0)), SPAN, 1) > 0


def hidden(frames: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Return the frames with noise in place of the masked ones."""
    noise = HIDDEN * torch.randn(frames.shape, generator=generator)
    return torch.where(mask[..., None], noise, frames)
