"""What the examples share: trainings with several seeds, synthesised sounds, spectrograms, the linear probe."""

import io
import math
import statistics
import wave

import pytest
import torch
from rich.console import Console
from torch import nn

pytest.importorskip("diffusers", reason="the extra `models` has it")
pytest.importorskip("transformers", reason="the extra `models` has it")

from benchmarks.examples import swap, utterances
from benchmarks.examples.heard import HIDDEN, SPAN, hidden, masks
from benchmarks.examples.sounds import sounds
from benchmarks.examples.swap import Measure, Trainer, Trial, compare, spread, words
from benchmarks.examples.utterances import LOUDEST, SAMPLE_RATE, STEP, VOWELS
from benchmarks.examples.vowel_probe import linear_probe, percent
from benchmarks.examples.waves import BANDS, HOP, log_mel, mel_distance, spectral_distance, spectrogram, wav


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_both_quantizers_are_trained_with_the_same_seeds():
    calls = []

    def run(name: str, seed: int, train: Trainer) -> Trial:
        calls.append((name, seed))
        model, rates = nn.Linear(1, 1), []
        train(model, lambda: rates.append(None) or model(torch.ones(1)).square().sum())
        assert len(rates) == 4
        assert not model.training
        return Trial({"score": float(seed)}, [torch.tensor([seed + 1, 0])], name)

    runs = [("a", lambda seed, train: run("a", seed, train)), ("b", lambda seed, train: run("b", seed, train))]
    console = Console(record=True, width=80, file=io.StringIO())
    comparison = compare(runs, [Measure("score", "score", 1)], 4, 3, console)
    assert calls == [(name, seed) for seed in range(3) for name in "ab"]
    assert [result.trials[0].shown for result in comparison.results] == ["a", "b"]
    record = comparison.record()
    assert record["results"][0]["score"] == {"mean": 1.0, "sd": 1.0, "values": [0.0, 1.0, 2.0]}
    assert record["results"][1]["codebooks"][0]["utilization"]["values"] == [0.5] * 3
    shown = console.export_text()
    assert "1.0 ± 1.0" in shown
    assert "50.0 ± 0.0" in shown


def test_a_trainer_lowers_the_loss():
    model = nn.Linear(4, 1)
    x = torch.randn(32, 4, generator=generator())
    losses = []

    def step():
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        losses.append(loss.item())
        return loss

    with swap.Progress(*swap.columns(), disable=True) as bar:
        Trainer(200, bar, "model")(model, step)
    assert losses[-1] < losses[0] / 2


def test_a_spread_of_one_value_has_no_deviation_and_one_of_none_is_no_spread():
    assert spread([2.5]) == {"mean": 2.5, "sd": None, "values": [2.5]}
    assert spread([]) is None
    assert spread([1.0, 2.0, 6.0])["sd"] == statistics.stdev([1, 2, 6])
    assert [words(values, 1) for values in ([], [2.04], [1.0, 3.0])] == ["–", "2.0", "2.0 ± 1.4"]


def test_speech_follows_from_the_generator_alone():
    spoken, again = (utterances.utterances(3, 8000, generator(5)) for _ in range(2))
    assert torch.equal(spoken.sounds, again.sounds)
    assert torch.equal(spoken.vowels, again.vowels)
    assert spoken.sounds.shape == (3, 1, 8000)
    assert spoken.vowels.shape == (3, 8000 // STEP)
    assert not torch.equal(spoken.sounds[0], spoken.sounds[1])
    torch.testing.assert_close(spoken.sounds.abs().amax((1, 2)), torch.full((3,), LOUDEST))
    assert set(spoken.vowels.unique().tolist()) <= {*range(-1, len(VOWELS))}


def test_speech_is_longest_in_vowels_and_loudest_there():
    spoken = utterances.utterances(16, SAMPLE_RATE, generator())
    sounding = spoken.vowels >= 0
    assert 0.4 < sounding.float().mean() < 0.9
    energies = spoken.sounds[:, 0].unflatten(-1, (-1, STEP)).square().mean(-1)
    assert energies[sounding].mean() > 3 * energies[~sounding].mean()


def test_vowels_sound_where_the_labels_say_with_their_formants():
    """The mean frequency below 1 kHz, weighted by energy, is ordered like the first formants, and the mean
    between 1 and 4 kHz like the second.
    """
    spoken = utterances.utterances(64, SAMPLE_RATE, generator())
    spectrum = spectrogram(spoken.sounds, 320).exp().square()[..., 1:]  # a frame of 80 samples, one for each label
    spectrum, frequency = spectrum[..., : spoken.vowels.shape[1]], torch.linspace(0, SAMPLE_RATE / 2, 161)

    def centre(vowel: str, lowest: float, highest: float) -> float:
        band = (frequency >= lowest) & (frequency < highest)
        energies = spectrum.transpose(1, 2)[spoken.vowels == list(VOWELS).index(vowel)].mean(0)[band]
        return float((energies * frequency[band]).sum() / energies.sum())

    assert centre("ee", 0, 1000) < centre("er", 0, 1000) < centre("ah", 0, 1000)
    assert centre("er", 1000, 4000) < centre("eh", 1000, 4000) < centre("ee", 1000, 4000)


def test_the_vocabulary_is_always_the_same_and_its_words_differ():
    words_before = utterances.vocabulary()
    utterances.vocabulary.cache_clear()
    assert utterances.vocabulary() == words_before
    assert len(set(words_before)) == utterances.WORDS


def test_sounds_are_tones_and_speech_in_turn():
    drawn = sounds(4, 4000, generator())
    assert drawn.shape == (4, 1, 4000)
    torch.testing.assert_close(drawn.abs().amax((1, 2)), torch.full((4,), LOUDEST))


@pytest.mark.parametrize("frequency", [300.0, 1000.0, 5000.0])
def test_a_tone_is_in_its_mel_band(frequency):
    time = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    mel = log_mel(torch.sin(2 * math.pi * frequency * time)[None, None])
    assert mel.shape == (1, SAMPLE_RATE // HOP, BANDS)
    place = (BANDS + 1) * math.log(1 + frequency / 700) / math.log(1 + SAMPLE_RATE / 2 / 700) - 1
    assert abs(int(mel[0, 50].argmax()) - place) <= 1


def test_distances_of_a_sound_to_itself_are_zero_and_a_silent_one_has_a_gradient():
    sound = sounds(2, 4000, generator())
    assert spectral_distance(sound, sound) == 0
    assert mel_distance(sound, sound) == 0
    noise = torch.randn(1, 1, 4000, generator=generator())
    torch.testing.assert_close(mel_distance(noise, noise / 10), torch.tensor(20.0), atol=1e-3, rtol=0)
    almost_silent = torch.full_like(sound, 1e-6).requires_grad_()
    (gradient,) = torch.autograd.grad(spectral_distance(sound, almost_silent), almost_silent)
    assert gradient.abs().max() > 0


def test_a_wav_file_holds_all_sounds():
    drawn = sounds(2, 4000, generator())
    with wave.open(io.BytesIO(wav(drawn))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SAMPLE_RATE)
        stored = torch.frombuffer(bytearray(file.readframes(8000)), dtype=torch.int16) / 32767
    torch.testing.assert_close(stored, drawn.flatten(), atol=1 / 32767, rtol=0)


def test_masks_are_spans_in_every_row():
    mask = masks(200, 50, generator())
    assert mask.any(1).all()
    assert 0.2 < mask.float().mean() < 0.5
    for row in mask.tolist():
        spans = "".join("x" if hides else " " for hides in row)
        inside = [span for span in spans.rstrip("x").split() if span]  # the last one may be cut off at the end
        assert all(len(span) >= SPAN for span in inside)


def test_nothing_of_a_hidden_frame_is_left():
    frames, mask = torch.full((8, 50, 160), 100.0), masks(8, 50, generator())
    heard = hidden(frames, mask, generator())
    assert (heard[~mask] == 100).all()
    assert heard[mask].abs().max() < 10 * HIDDEN


def test_a_linear_probe_separates_what_a_plane_separates():
    x = torch.randn(400, 8, generator=generator())
    y = (x[:, :3] @ torch.eye(3)).argmax(1)
    probe = linear_probe(x[:300], y[:300])
    assert percent(probe(x[300:]).argmax(1) == y[300:]) > 95
