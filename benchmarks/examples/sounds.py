"""Synthesised sounds to train a small codec on: tones with overtones, and speech.

Nothing is recorded. A codec trained on these sounds has never been exposed to real speech or music.
"""

import math

import torch
from torch import Tensor

from benchmarks.examples.utterances import LOUDEST, SAMPLE_RATE, utterances


def sounds(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """Return [count, 1, samples] in [−1, 1]: tones and speech alternately, each drawn separately."""
    drawn = [_tones(samples, generator) if i % 2 == 0 else _speech(samples, generator) for i in range(count)]
    return torch.stack(drawn)


def _tones(samples: int, generator: torch.Generator) -> Tensor:
    sound = tones(samples, generator)
    return (sound / sound.abs().max().clamp(min=1e-3) * LOUDEST)[None]


def _speech(samples: int, generator: torch.Generator) -> Tensor:
    return utterances(1, samples, generator).sounds[0]


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
