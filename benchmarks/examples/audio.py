"""The DacModel of transformers, with its own quantizers and with this library's."""

import io
import wave
from pathlib import Path
from typing import Annotated

import torch
import typer
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F
from transformers import DacConfig
from transformers.models.dac.modeling_dac import DacModel

from benchmarks.examples.sounds import SAMPLE_RATE, sounds
from benchmarks.examples.swap import Result, decibels, record, table, train
from benchmarks.files import write_bytes, write_json
from benchmarks.plots import save
from quantizers import metrics, plug_in

STAGES, CODES = 4, 256
CLIP = 2048  # samples of a training clip, an eighth of a second
WINDOWS = (128, 512, 1024)  # window lengths of the compared spectrograms, in samples


def build() -> DacModel:
    """Build a small DAC with four codebooks of 256 codes, with the same initial weights each time."""
    torch.manual_seed(0)
    config = DacConfig(
        encoder_hidden_size=16,
        downsampling_ratios=[2, 4],
        decoder_hidden_size=64,
        n_codebooks=STAGES,
        codebook_size=CODES,
        codebook_dim=8,
        sampling_rate=SAMPLE_RATE,
    )
    return DacModel(config)


def spectrogram(sound: Tensor, window: int) -> Tensor:
    """Return log magnitudes of [B, 1, T] as [B, frequencies, frames]."""
    shape = torch.hann_window(window)
    return torch.stft(sound[:, 0], window, window // 4, window=shape, return_complex=True).abs().clamp(1e-3).log()


def distance(sound: Tensor, other: Tensor) -> Tensor:
    """Return the mean absolute difference of waves and of log spectrograms at three resolutions, a common codec
    loss.
    """
    spectra = [F.l1_loss(spectrogram(sound, window), spectrogram(other, window)) for window in WINDOWS]
    return 15 * F.l1_loss(sound, other) + sum(spectra)


def run(model: DacModel, name: str, steps: int, console: Console) -> tuple[Result, Tensor]:
    """Train, then measure on other random sounds. Also returns their reconstructions, to look at and listen to."""
    generator = torch.Generator().manual_seed(1)

    def step(_: int) -> Tensor:
        clips = sounds(4, CLIP, generator)
        out = model(clips)
        return distance(out.audio_values[:, None], clips[..., : out.audio_values.shape[-1]]) + out.loss.mean()

    train(model, name, step, steps, console)
    clips = held_out()
    with torch.no_grad():
        codes = model.encode(clips).audio_codes
        decoded = model.decode(audio_codes=codes).audio_values[:, None]
    clips = clips[..., : decoded.shape[-1]]
    size = getattr(model.quantizer, "codebook_size", CODES)
    counts = [metrics.code_counts(codes[:, stage], size) for stage in range(codes.shape[1])]
    return Result(name, decibels(clips, clips - decoded), counts), decoded


def held_out() -> Tensor:
    """Return sounds that no model was trained on, a second each: [8, 1, T]."""
    return sounds(8, SAMPLE_RATE, torch.Generator().manual_seed(2))


def picture(rows: dict[str, Tensor]) -> Figure:
    """Draw spectrograms of two sounds, with a row for each model."""
    figure = Figure(figsize=(9, 1.9 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 2, sharex=True, sharey=True)
    for (name, waves), line in zip(rows.items(), grid, strict=True):
        for sound, axes in zip(waves[:2], line, strict=True):
            image = spectrogram(sound[None], 512)[0]
            seconds = sound.shape[-1] / SAMPLE_RATE
            extent = (0.0, seconds, 0.0, SAMPLE_RATE / 2000)
            axes.imshow(image.numpy(), origin="lower", aspect="auto", extent=extent, vmin=-5, vmax=4)
        line[0].set_ylabel(f"{name}\nkHz", fontsize=9)
    for axes, title in zip(grid[0], ("tones", "speech-like noise"), strict=True):
        axes.set_title(title, fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("s", fontsize=9)
    return figure


def wav(sound: Tensor) -> bytes:
    """Encode [1, T] in [−1, 1] as a 16-bit WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((sound[0].clamp(-1, 1) * 32767).short().numpy().tobytes())
    return buffer.getvalue()


def main(
    quantizer: Annotated[str, typer.Option(help="One of quantizers.available().")] = "fsq",
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each model.")] = 300,
    out: Annotated[Path, typer.Option(help="The output folder of picture, JSON and sounds.")] = Path(
        "runs/examples"
    ),
) -> None:
    """Train transformers' DacModel twice from the same weights, with its own quantizers and with this
    library's."""
    console = Console()
    own, own_audio = run(build(), "DAC's own", steps, console)
    swapped = plug_in(build(), quantizer)  # the one line
    ours, our_audio = run(swapped, quantizer, steps, console)
    console.print(table([own, ours], "SNR dB"))
    rows = {"original": held_out(), own.name: own_audio, ours.name: our_audio}
    out.mkdir(parents=True, exist_ok=True)
    save(out / "audio.png", picture(rows))
    write_json(out / "audio.json", record([own, ours], "snr_db", steps))
    names = ("original", "own", "swapped")
    for name, audio in zip(names, rows.values(), strict=True):
        write_bytes(out / f"{name}.wav", wav(torch.cat([audio[0], audio[1]], -1)))
    console.print(
        f"In {out}: audio.png, audio.json, {', '.join(f'{name}.wav' for name in names)}", highlight=False
    )


if __name__ == "__main__":
    typer.run(main)
