"""Sounds as spectrograms, distances between sounds, and WAV files. Shared by the examples of sound."""

import io
import wave
from functools import cache

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from benchmarks.examples.utterances import SAMPLE_RATE

WINDOWS = (128, 512, 1024)  # window lengths of the compared spectrograms, in samples
BANDS = 40  # of a mel spectrogram
HOP = 160  # samples between the frames of a mel spectrogram, 10 ms
MEL_WINDOW = 512  # samples
FLOOR = (
    1e-6  # added to an energy before its logarithm; a silent sound still has a gradient, other than with a clamp
)


def spectrogram(sound: Tensor, window: int) -> Tensor:
    """Return log magnitudes of [B, 1, T] as [B, frequencies, frames]."""
    return (_energies(sound, window, window // 4) + FLOOR).log() / 2


def log_mel(sound: Tensor) -> Tensor:
    """Return the log energy of [B, 1, T] in mel bands, [B, T // HOP, BANDS], in dB."""
    energies = _mel_filters() @ _energies(sound, MEL_WINDOW, HOP)
    return 10 * energies.clamp(1e-4).log10().transpose(1, 2)[:, : sound.shape[-1] // HOP]


def spectral_distance(sound: Tensor, other: Tensor) -> Tensor:
    """Return the mean absolute difference of log spectrograms, summed over three resolutions."""
    return torch.stack([F.l1_loss(spectrogram(sound, n), spectrogram(other, n)) for n in WINDOWS]).sum()


def mel_distance(sound: Tensor, other: Tensor) -> Tensor:
    """Return the mean absolute difference of mel spectrograms in dB."""
    return F.l1_loss(log_mel(sound), log_mel(other))


def _energies(sound: Tensor, window: int, hop: int) -> Tensor:
    spectrum = torch.stft(sound[:, 0], window, hop, window=torch.hann_window(window), return_complex=True)
    return spectrum.real.square() + spectrum.imag.square()


@cache
def _mel_filters() -> Tensor:
    """Return triangles [BANDS, frequencies] that overlap by half, at equal distances on the mel scale
    2595 log₁₀(1 + f / 700).
    """
    highest = 2595 * torch.log10(torch.tensor(1 + SAMPLE_RATE / 2 / 700))
    edges = 700 * (10 ** (torch.linspace(0, 1, BANDS + 2) * highest / 2595) - 1)
    lower, centre, upper = (edges[i : i + BANDS, None] for i in range(3))
    frequency = torch.linspace(0, SAMPLE_RATE / 2, MEL_WINDOW // 2 + 1)
    return torch.minimum((frequency - lower) / (centre - lower), (upper - frequency) / (upper - centre)).clamp(0)


def picture(rows: dict[str, Tensor], titles: tuple[str, str]) -> Figure:
    """Draw spectrograms of the first two sounds of each model's [B, 1, T], with a row for each model."""
    figure = Figure(figsize=(9, 1.9 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 2, sharex=True, sharey=True)
    for (name, sounds), line in zip(rows.items(), grid, strict=True):
        for sound, axes in zip(sounds[:2], line, strict=True):
            image = spectrogram(sound[None], 512)[0]
            extent = (0.0, sound.shape[-1] / SAMPLE_RATE, 0.0, SAMPLE_RATE / 2000)
            axes.imshow(image.numpy(), origin="lower", aspect="auto", extent=extent, vmin=-5, vmax=4, cmap="magma")
        line[0].set_ylabel(f"{name}\nkHz", fontsize=9)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("s", fontsize=9)
    return figure


def wav_files(name: str, rows: dict[str, Tensor], count: int) -> dict[str, bytes]:
    """Encode the first sounds of the original, the model's own and the swapped quantizer, by name of file."""
    kinds = ("original", "own", "swapped")
    return {f"{name}_{kind}.wav": wav(row[:count]) for kind, row in zip(kinds, rows.values(), strict=True)}


def wav(sounds: Tensor) -> bytes:
    """Encode sounds [B, 1, T] in [−1, 1], one after the other, as a 16-bit WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((sounds.flatten().clamp(-1, 1) * 32767).short().numpy().tobytes())
    return buffer.getvalue()
