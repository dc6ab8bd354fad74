"""Synthesised speech: words of a made-up language, spoken by random voices.

Nothing is recorded. A source (pulses of the voice, and noise) is filtered by resonances that move from sound to
sound, as in a formant synthesizer (Klatt: Software for a cascade/parallel formant synthesizer, 1980). It is known
which vowel is heard when. The vocabulary is small and always the same, so that a masked syllable can be guessed
from its neighbours.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

SAMPLE_RATE = 16000  # Hz
STEP = 80  # samples, 5 ms: the resolution of the moving resonances and of the vowel labels
WINDOW = 512  # samples, of the filter
GLIDE = 9  # steps in which one sound changes into the next
WORDS = 32
LOUDEST = 0.8

# Means of men's formants in Hz: Peterson and Barney, Control methods used in a study of the vowels, 1952.
VOWELS = {
    "ee": (270, 2290, 3010),
    "eh": (530, 1840, 2480),
    "ae": (660, 1720, 2410),
    "ah": (730, 1090, 2440),
    "aw": (570, 840, 2410),
    "oo": (300, 870, 2240),
    "er": (490, 1350, 1690),
}
FORMANTS = list(VOWELS.values())


class Sound(NamedTuple):
    """A phone: its length in steps, the strengths of voice and noise, and the resonances that shape the two."""

    steps: int
    voice: float
    noise: float
    formants: tuple[float, float, float]  # Hz
    centre: float = 3000.0  # Hz, of the noise
    width: float = 1500.0  # Hz, of the noise
    vowel: int = -1


class Utterances(NamedTuple):
    """Speech with its vowels: sounds [B, 1, T] in [−1, 1], and vowels int64 [B, T // STEP], −1 for no vowel."""

    sounds: Tensor
    vowels: Tensor


NEUTRAL = (500.0, 1500.0, 2500.0)
SILENCE = Sound(12, 0, 0, NEUTRAL)
CONSONANTS = (
    (Sound(20, 0.0, 0.12, NEUTRAL, 6000, 1200),),  # s
    (Sound(20, 0.0, 0.14, NEUTRAL, 3200, 900),),  # sh
    (Sound(14, 0.0, 0.05, NEUTRAL, 4000, 4000),),  # f
    (Sound(10, 0.0, 0.00, NEUTRAL), Sound(3, 0, 0.25, NEUTRAL, 4500, 1500)),  # t
    (Sound(10, 0.0, 0.00, NEUTRAL), Sound(4, 0, 0.25, NEUTRAL, 1800, 600)),  # k
    (Sound(8, 0.10, 0.0, (200, 1000, 2200)), Sound(2, 0.3, 0.12, (250, 900, 2200), 800, 600)),  # b
    (Sound(14, 0.35, 0.0, (250, 1200, 2300)),),  # m
    (Sound(12, 0.50, 0.0, (360, 1100, 2900)),),  # l
)


def utterances(count: int, samples: int, generator: torch.Generator) -> Utterances:
    """Draw speech of `samples` samples, each piece by a voice of its own, beginning and ending anywhere in a
    word.
    """
    spoken = [_utterance(samples, generator) for _ in range(count)]
    sounds = torch.stack([sound for sound, _ in spoken])
    loudness = sounds.abs().amax(-1, keepdim=True).clamp(min=1e-3)
    return Utterances((LOUDEST * sounds / loudness)[:, None], torch.stack([vowels for _, vowels in spoken]))


@cache
def vocabulary() -> tuple[tuple[Sound, ...], ...]:
    """Return the words, of two or three syllables each, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return tuple(_word(generator) for _ in range(WORDS))


def _word(generator: torch.Generator) -> tuple[Sound, ...]:
    syllables = int(torch.randint(2, 4, (), generator=generator))
    sounds: list[Sound] = []
    for _ in range(syllables):
        consonant = int(torch.randint(len(CONSONANTS), (), generator=generator))
        vowel = int(torch.randint(len(FORMANTS), (), generator=generator))
        sounds += [*CONSONANTS[consonant], Sound(28, 1, 0.02, FORMANTS[vowel], vowel=vowel)]
    return tuple(sounds)


def _words(generator: torch.Generator) -> Iterator[tuple[Sound, ...]]:
    words = vocabulary()
    while True:
        yield words[int(torch.randint(len(words), (), generator=generator))]
        if torch.rand((), generator=generator) < 0.3:
            yield (SILENCE,)


def _utterance(samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the sound [samples] and the vowels [samples // STEP]."""
    pitch, size, speed, start = torch.rand(4, generator=generator).tolist()
    steps = samples // STEP + 1
    first = int(60 * start)
    tracks, vowels, words = _tracks(first + steps, 0.8 + 0.5 * speed, generator)
    tracks, vowels, words = tracks[first:], vowels[first:], words[first:]
    tracks[:, 2:5] *= 0.92 + 0.3 * size  # a smaller mouth has higher resonances
    pulses = _pulses(90 + 150 * pitch, words, samples)
    noise = torch.randn(samples, generator=generator)
    sound = _filtered(pulses, tracks[:, 0], _resonances(tracks[:, 2:5]))
    sound = sound + _filtered(noise, tracks[:, 1], _band(tracks[:, 5], tracks[:, 6]))
    return sound + 0.01 * torch.randn(samples, generator=generator), vowels[: samples // STEP]


def _tracks(steps: int, speed: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each step [voice, noise, three formants, centre, width], the vowel, and the place in its word,
    from 0 to 1.
    """
    rows: list[tuple[float, ...]] = []
    vowels: list[int] = []
    places: list[Tensor] = []
    for word in _words(generator):
        lengths = [max(2, round(sound.steps / speed)) for sound in word]
        for sound, length in zip(word, lengths, strict=True):
            rows += [(sound.voice, sound.noise, *sound.formants, sound.centre, sound.width)] * length
            vowels += [sound.vowel] * length
        places.append(torch.linspace(0, 1, sum(lengths)))
        if len(rows) >= steps:
            break
    tracks = torch.tensor(rows[:steps]).T[None]
    tracks = F.avg_pool1d(F.pad(tracks, (GLIDE // 2, GLIDE // 2), "replicate"), GLIDE, 1)[0].T
    return tracks, torch.tensor(vowels[:steps]), torch.cat(places)[:steps]


def _pulses(pitch: float, places: Tensor, samples: int) -> Tensor:
    """Return pulses [samples] of a pitch in Hz that rises by a tenth and falls by a quarter along each word."""
    contour = pitch * (1.1 - 0.35 * places + 0.1 * torch.sin(torch.pi * places))
    contour = F.interpolate(contour[None, None], samples, mode="linear")[0, 0]
    turns = (contour.double() / SAMPLE_RATE).cumsum(0).floor()
    return (turns.diff(prepend=turns[:1]) > 0).float() * (SAMPLE_RATE / pitch) ** 0.5


def _filtered(source: Tensor, strength: Tensor, gain: Tensor) -> Tensor:
    """Multiply the spectrum of a source [samples] by a gain [steps, frequencies] and a strength [steps] that
    change with time.
    """
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(source, WINDOW, STEP, window=window, return_complex=True)
    shaped = spectrum * (strength[:, None] * gain).T[:, : spectrum.shape[-1]]
    return torch.istft(shaped, WINDOW, STEP, window=window, length=len(source))


def _frequencies() -> Tensor:
    return torch.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)


def _resonances(formants: Tensor) -> Tensor:
    """Return the gain [steps, frequencies] of three parallel resonances [steps, 3] in Hz, for a voice that loses
    strength above 500 Hz.
    """
    frequency = _frequencies()
    widths, strengths = torch.tensor((70.0, 100.0, 150.0)), torch.tensor((1.0, 0.7, 0.4))
    apart = (frequency - formants[..., None]) / widths[:, None]
    return (strengths[:, None] / (1 + apart.square())).sum(-2) / (1 + frequency / 3000)


def _band(centre: Tensor, width: Tensor) -> Tensor:
    """Return a gain [steps, frequencies] of 1 at a centre [steps] that falls with the distance from it."""
    return torch.exp(-((_frequencies() - centre[:, None]) / width[:, None]).square())
