"""A residual codec: the DacModel of transformers, with its own quantizers and with this library's."""

import torch
import typer
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F
from transformers import DacConfig
from transformers.models.dac.modeling_dac import DacModel

from benchmarks.examples.sounds import sounds
from benchmarks.examples.swap import (
    FOLDER,
    Measure,
    Out,
    QuantizerName,
    Seeds,
    Steps,
    Trainer,
    Trial,
    compare,
    decibels,
    write,
)
from benchmarks.examples.utterances import SAMPLE_RATE
from benchmarks.examples.waves import mel_distance, picture, spectral_distance, wav_files
from quantizers import metrics, plug_in

STAGES, CODES = 4, 256
BATCH, CLIP = 4, 2048  # sounds of a training step, and their samples, an eighth of a second
MEASURES = (Measure("snr_db", "SNR dB"), Measure("mel_distance_db", "mel dB"))


def build(seed: int) -> DacModel:
    """Build a small DAC with four codebooks of 256 codes, with the same initial weights for the same seed."""
    torch.manual_seed(seed)
    config = DacConfig(
        encoder_hidden_size=8,
        downsampling_ratios=[2, 4],
        decoder_hidden_size=32,
        n_codebooks=STAGES,
        codebook_size=CODES,
        codebook_dim=8,
        sampling_rate=SAMPLE_RATE,
    )
    return DacModel(config)


def run(model: DacModel, seed: int, train: Trainer) -> Trial:
    """Train, then measure on other random sounds."""
    generator = torch.Generator().manual_seed(seed)

    def step() -> Tensor:
        clips = sounds(BATCH, CLIP, generator)
        out = model(clips)
        decoded = out.audio_values[:, None]
        clips = clips[..., : decoded.shape[-1]]
        return 15 * F.l1_loss(clips, decoded) + spectral_distance(clips, decoded) + out.loss.mean()

    train(model, step)
    clips = held_out()
    with torch.no_grad():
        codes = model.encode(clips).audio_codes
        decoded = model.decode(audio_codes=codes).audio_values[:, None]
    clips = clips[..., : decoded.shape[-1]]
    size = getattr(model.quantizer, "codebook_size", CODES)
    counts = [metrics.code_counts(codes[:, stage], size) for stage in range(codes.shape[1])]
    measured = {"snr_db": decibels(clips, clips - decoded), "mel_distance_db": mel_distance(clips, decoded).item()}
    return Trial(measured, counts, decoded[:2])


def held_out() -> Tensor:
    """Return sounds that no model was trained on, a second each: [8, 1, T]."""
    return sounds(8, SAMPLE_RATE, torch.Generator().manual_seed(2**31))


def main(quantizer: QuantizerName = "fsq", steps: Steps = 300, seeds: Seeds = 3, out: Out = FOLDER) -> None:
    """Train transformers' DacModel twice from the same weights, with its own quantizers and with this
    library's.
    """
    console = Console()
    runs = [
        ("DAC's own", lambda seed, train: run(build(seed), seed, train)),
        (quantizer, lambda seed, train: run(plug_in(build(seed), quantizer), seed, train)),  # the one line
    ]
    comparison = compare(runs, MEASURES, steps, seeds, console)
    own, swapped = (result.trials[0].shown for result in comparison.results)
    rows = {"original": held_out(), "DAC's own": own, f"{quantizer} swapped in": swapped}
    write(out, "audio", comparison, picture(rows, ("tones", "speech")), console, wav_files("audio", rows, 2))


if __name__ == "__main__":
    typer.run(main)
