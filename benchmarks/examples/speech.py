"""A speech codec with FSQ: the Xcodec2Model of transformers, with its own quantizer and with one of this library.

The model is small and is trained from scratch on synthesised speech, all but one part: its semantic encoder, a
Wav2Vec2-BERT, which gets no gradient in the model's own forward. In published weights that part has learned from
recorded speech. Here it keeps its random initial weights and thus is a fixed, arbitrary function of the mel
spectrogram. The loss compares spectrograms alone, without discriminators, and training is short: the result is a
noisy vocoder, good enough to compare quantizers in it.

Model: Ye et al.: Llasa: Scaling Train-Time and Inference-Time Compute for Llama-based Speech Synthesis, 2025
(arXiv 2502.04128).
"""

import importlib.util
import sys

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

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
    write,
)
from benchmarks.examples.utterances import SAMPLE_RATE, utterances
from benchmarks.examples.waves import BANDS, log_mel, mel_distance, picture, spectral_distance, wav_files
from quantizers import metrics, plug_in

if importlib.util.find_spec("transformers.models.xcodec2") is None:
    sys.exit("This example needs a version of transformers that has Xcodec2: pip install --upgrade transformers")

from transformers import Wav2Vec2BertConfig
from transformers.models.xcodec2 import Xcodec2Config, Xcodec2Model

LEVELS = (4, 4, 4, 4)  # 256 codes; the published model has (4,) * 8, too many to count on a minute of speech
RATIOS = (8, 5, 4, 2)  # samples per code: 320, 50 codes per second
WIDTH, SEMANTIC_WIDTH = 64, 32
BATCH, CLIP = 8, 8000  # clips of a training step, and their samples, half a second
MEL_WEIGHT = 0.5  # of a difference in dB, beside that of log spectrograms
FRAMES = 2  # of the mel spectrogram, in each input of the semantic encoder
MEASURES = (Measure("mel_distance_db", "mel dB"),)


def build(seed: int) -> Xcodec2Model:
    """Build a small Xcodec2 with 256 codes, with the same initial weights for the same seed."""
    torch.manual_seed(seed)
    semantic = Wav2Vec2BertConfig(
        hidden_size=SEMANTIC_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        feature_projection_input_dim=FRAMES * BANDS,
        apply_spec_augment=False,
    )
    config = Xcodec2Config(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        encoder_hidden_size=2,
        downsampling_ratios=RATIOS,
        semantic_model_config=semantic,
        quantization_dim=WIDTH + SEMANTIC_WIDTH,
        quantization_levels=LEVELS,
        activation_dropout=0.0,
    )
    model = Xcodec2Model(config)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            # transformers draws weights from N(0, 0.02²); layers as narrow as these then pass on next to nothing.
            module.reset_parameters()
    return model


def features(sounds: Tensor) -> Tensor:
    """Return the input of the semantic encoder [B, T // 320, 80]: pairs of mel frames, standardized for each
    sound.
    """
    mel = log_mel(sounds)
    mel = (mel - mel.mean(1, keepdim=True)) / mel.std(1, keepdim=True).clamp(min=1e-3)
    return mel[:, : mel.shape[1] // FRAMES * FRAMES].unflatten(1, (-1, FRAMES)).flatten(2)


def quantizer_loss(quantizer: nn.Module) -> Tensor | float:
    """Return the loss of the last forward, which the model does not pass on. Its own FSQ has none."""
    loss: Tensor | float = getattr(quantizer, "loss", 0.0)
    return loss


def run(model: Xcodec2Model, seed: int, train: Trainer) -> Trial:
    """Train, then measure on the speech of other voices."""
    generator = torch.Generator().manual_seed(seed)

    def step() -> Tensor:
        model.semantic_encoder.eval()
        clips = utterances(BATCH, CLIP, generator).sounds
        decoded = model(clips, features(clips)).audio_values
        distance = spectral_distance(clips, decoded) + MEL_WEIGHT * mel_distance(clips, decoded)
        return distance + quantizer_loss(model.quantizer)

    train(model, step)
    clips = held_out()
    with torch.no_grad():
        codes = model.encode(clips, features(clips)).audio_codes
        decoded = model.decode(codes).audio_values
    size = getattr(getattr(model.quantizer, "quantizer", None), "codebook_size", 4 ** len(LEVELS))
    measured = {"mel_distance_db": mel_distance(clips, decoded).item()}
    counts = [metrics.code_counts(codebook, size) for codebook in codes.unbind(1)]
    return Trial(measured, counts, decoded[:4])


def held_out() -> Tensor:
    """Return speech that no model was trained on: [32, 1, T], two seconds each."""
    return utterances(32, 2 * SAMPLE_RATE, torch.Generator().manual_seed(2**31)).sounds


def main(quantizer: QuantizerName = "simvq", steps: Steps = 100, seeds: Seeds = 3, out: Out = FOLDER) -> None:
    """Train transformers' Xcodec2Model twice from the same weights, with its own FSQ and with a quantizer of this
    library.
    """
    console = Console()
    runs = [
        ("Xcodec2's own", lambda seed, train: run(build(seed), seed, train)),
        (quantizer, lambda seed, train: run(plug_in(build(seed), quantizer), seed, train)),  # the one line
    ]
    comparison = compare(runs, MEASURES, steps, seeds, console)
    own, swapped = (result.trials[0].shown for result in comparison.results)
    rows = {"original": held_out(), "Xcodec2's own": own, f"{quantizer} swapped in": swapped}
    write(
        out,
        "speech",
        comparison,
        picture(rows, ("one voice", "another voice")),
        console,
        wav_files("speech", rows, 4),
    )


if __name__ == "__main__":
    typer.run(main)
