"""Synthesised sounds to train a small codec on: tones with overtones, and noise shaped like speech.

Nothing is recorded. A codec trained on these sounds has never been exposed to real speech or music.
"""

import math

import torch
from torch import Tensor

SAMPLE_RATE = 16000  # Hz
SYLLABLES = 4.0  # per second, as in speech
FORMANTS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))  # Hz: ah, ee, oo, eh
BANDWIDTH = 90.0  # Hz, of a formant


def sounds(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """Return [count, 1, samples] in [−1, 1]: tones and speech-like noise alternately, each drawn separately."""
    makers = (tones, speech_like)
    drawn = [makers[i % 2](samples, generator) for i in range(count)]
    return torch.stack([sound / sound.abs().max().clamp(min=1e-3) * 0.8 for sound in drawn])[:, None]


def tones(samples: int, generator: torch.Generator) -> Tensor:
    """Draw one to three notes of 80 to 800 Hz with decaying overtones, slight vibrato, and separate onsets."""
    time = torch.arange(samples) / SAMPLE_RATE
    sound = torch.zeros(samples)
    for _ in range(int(torch.randint(1, 4, (), generator=generator))):
        pitch, start, fall, depth = torch.rand(4, generator=generator).tolist()
        vibrato = 0.005 * depth * torch.sin(2 * math.pi * 5 * time)
        phase = 2 * math.pi * 80 * 10**pitch * (time + vibrato / 5)
        note = sum(torch.sin(k * phase) / k ** (1 + fall) for k in range(1, 9))
        sound = sound + note * torch.exp(-3 * (time - start * time[-1]).clamp(min=0)) * (
            time >= start * time[-1] / 2
        )
    return sound


def speech_like(samples: int, generator: torch.Generator) -> Tensor:
    """Filter pulses and noise through the resonances of a vowel, four syllables per second, each with its own
    vowel.
    """
    length = int(SAMPLE_RATE / SYLLABLES)
    shift = int(torch.randint(0, length, (), generator=generator))
    syllables = [_syllable(length, generator) for _ in range(samples // length + 2)]
    return torch.cat(syllables)[shift : shift + samples]


def _syllable(length: int, generator: torch.Generator) -> Tensor:
    pitch, voiced, vowel = torch.rand(3, generator=generator).tolist()
    source = 0.3 * torch.randn(length, generator=generator)
    if voiced > 0.3:
        source[:: int(SAMPLE_RATE / (90 + 130 * pitch))] += 5.0
    frequency = torch.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    resonances = FORMANTS[int(vowel * len(FORMANTS))]
    gain = sum(1 / (1 + ((frequency - centre) / BANDWIDTH) ** 2) for centre in resonances)
    shaped = torch.fft.irfft(torch.fft.rfft(source) * gain, length)
    return shaped * torch.sin(math.pi * torch.arange(length) / length) ** 2
