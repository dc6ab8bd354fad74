"""Captions of digits, the transformer that reads them in front of the codes, and its stage of the chain."""

import dataclasses
import io
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor

from benchmarks import digits
from benchmarks.captions import (
    ADJECTIVES,
    ATTRIBUTES,
    NUMBERS,
    PADDING,
    VOCABULARY,
    Captioner,
    Vocabulary,
    caption,
    ink,
    spread,
)
from benchmarks.chain import levels, loop, text_report, text_samples, text_stage
from benchmarks.chain.progress import Bars
from benchmarks.chain.reconstruction import Trained
from benchmarks.chain.settings import AUTOENCODING, DIGITS
from benchmarks.chain.sources import open_source
from benchmarks.chain.text_stage import Captioning
from benchmarks.digits import Digits
from benchmarks.errors import InputError
from benchmarks.models.caption_transformer import Caption, CaptionTransformer, start_guided
from benchmarks.models.condition import Condition
from benchmarks.models.sampling import sample, sample_steps

TRAIN, HELD_OUT = digits.load()
VOCABULARY_SIZE, LENGTH = 5, 3
SIZES = [(4,), (3, 5)]
all_sizes = pytest.mark.parametrize("sizes", SIZES, ids=str)


# Captions


def test_every_word_occurs_and_each_adjective_in_a_third() -> None:
    captioner = Captioner(TRAIN)
    words = [word for each in captioner(TRAIN) for word in each.split()]
    assert set(words) == set(VOCABULARY.words)
    for digit, images in enumerate(TRAIN.images[TRAIN.labels == d] for d in range(digits.CLASSES)):
        thirds = captioner.thirds(Digits(images, torch.full((len(images),), digit)))
        for third in (-1, 1):
            # A third holds n/3 images, up to one for rounding, and fewer where equal values lie on its border.
            counts = (thirds == third).sum(0)
            assert (counts <= len(images) / 3 + 1).all()
            assert (counts >= 0.8 * len(images) / 3).all()
    assert set(captioner(HELD_OUT)) <= set(text_samples.every_caption(1).captions)


@given(order=st.permutations(range(20)), data=st.data())
def test_a_caption_depends_on_its_image_alone(order: list[int], data: st.DataObject) -> None:
    captioner = Captioner(TRAIN)
    whole = captioner(HELD_OUT)
    chosen = order[: data.draw(st.integers(0, len(order)))]
    part = Digits(HELD_OUT.images[chosen], HELD_OUT.labels[chosen])
    assert captioner(part) == [whole[i] for i in chosen]


def test_captions_are_english_and_no_two_are_the_same() -> None:
    captions = text_samples.every_caption(1).captions
    assert len(set(captions)) == len(captions) == len(NUMBERS) * 3 ** len(ATTRIBUTES)
    assert caption(8, (0, 0)) == "an eight"
    assert caption(8, (1, 0)) == "a bold eight"
    assert caption(3, (-1, 1)) == "a thin wide three"
    assert all(sum(word in ADJECTIVES for word in each.split()) <= len(ATTRIBUTES) for each in captions)


def test_measures_are_of_ink_and_of_its_columns() -> None:
    image = torch.full((3, 1, 8, 8), -1.0)
    image[1, :, :, 2] = image[1, :, :, 6] = 1.0
    image[2] = -0.8  # grey paper
    assert ink(image).tolist() == pytest.approx([0, 0.25, 0.1])
    assert spread(image).tolist() == pytest.approx([0, 2, 0])


@given(
    words=st.sets(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=6).map(sorted),
    length=st.integers(1, 4),
    data=st.data(),
)
def test_captions_come_back_from_their_numbers(words: list[str], length: int, data: st.DataObject) -> None:
    vocabulary = Vocabulary(words, length)
    one = st.lists(st.sampled_from(words), max_size=length).map(" ".join)
    captions = data.draw(st.lists(one, max_size=4))
    rows = vocabulary.encode(captions)
    assert rows.dtype == torch.int64
    assert rows.shape == (len(captions), length)
    assert vocabulary.decode(rows) == captions
    assert torch.equal(vocabulary.encode(vocabulary.decode(rows)), rows)


def test_unsuitable_captions_and_words_are_named() -> None:
    with pytest.raises(InputError, match=r"'a red seven' contains the unknown word 'red'; .* a, an, thin, bold"):
        VOCABULARY.encode(["a seven", "a red seven"])
    with pytest.raises(InputError, match=r"'a a a a a' has 5 words; expected at most 4"):
        VOCABULARY.encode(["a a a a a"])
    for rows, message in (
        (torch.zeros(2, 4), "float32"),
        (torch.zeros(2, 3).long(), r"shape \(2, 3\); expected torch.int64 \[B, 4\]"),
        (torch.tensor([[1, 0, 0, -1]]), "hold -1 to 1; expected 0 to 16"),
        (torch.tensor([[17, 0, 0, 0]]), "hold 0 to 17; expected 0 to 16"),
        (torch.tensor([[0, 1, 0, 0]]), "padding in front of a word"),
    ):
        with pytest.raises(InputError, match=message):
            VOCABULARY.decode(rows)


# The transformer


def transformer(sizes: tuple[int, ...], spread: float = 1.5, **options: Any) -> CaptionTransformer:
    """Weights that are larger than at the start of a training, so that probabilities are far from equal."""
    prior = CaptionTransformer(
        sizes, 8, vocabulary=VOCABULARY_SIZE, length=LENGTH, layers=2, heads=2, largest=(4, 5), **options
    )
    for parameter in prior.parameters():
        parameter.data *= spread
    return prior.eval()


def random_codes(sizes: tuple[int, ...], *axes: int) -> Tensor:
    return torch.stack([torch.randint(size, axes) for size in sizes], -1)


def random_words(count: int) -> Tensor:
    return torch.randint(VOCABULARY_SIZE, (count, LENGTH))


def places(height: int, width: int, codebooks: int) -> list[tuple[int, int, int]]:
    return list(itertools.product(range(height), range(width), range(codebooks)))


def slopes(of: Tensor, to: list[Tensor]) -> list[Tensor]:
    """For each of the embeddings [1, …, width], where a random direction of the logits depends on it."""
    direction = torch.randn(of.shape, dtype=of.dtype)
    found = torch.autograd.grad(of, to, direction, retain_graph=True, allow_unused=True, materialize_grads=True)
    return [(each[0] != 0).any(-1) for each in found]


@all_sizes
def test_a_logit_depends_on_the_words_and_on_earlier_codes_alone(sizes: tuple[int, ...]) -> None:
    prior = transformer(sizes).double()
    captured: list[Tensor] = []
    for table in (prior.condition_map.embedding, *prior.embeddings):
        table.register_forward_hook(lambda *call: captured.append(call[2]))
    codes, words = random_codes(sizes, 1, 2, 3), random_words(1)
    embedded, context = prior._embed(codes, Caption(words=words))
    of_words, of_codes = prior._both_logits(embedded, context)
    assert len(captured) == 1 + len(sizes)
    for place in places(2, 3, len(sizes)):
        row, column, codebook = place
        text, *image = slopes(of_codes[codebook][0, row, column], captured)
        assert text.all()
        earlier = [other < place for other in places(2, 3, len(sizes))]
        assert torch.stack(image, -1).flatten().tolist() == earlier, place
    for t in range(LENGTH):
        text, *image = slopes(of_words[0, t], captured)
        assert text.tolist() == [other < t for other in range(LENGTH)]
        assert not any(each.any() for each in image)


@all_sizes
@pytest.mark.parametrize("shape", [(2, 3), (1, 5), (4, 1)], ids=str)
def test_steps_give_the_logits_of_the_whole_stream(sizes: tuple[int, ...], shape: tuple[int, int]) -> None:
    """In float64, up to 2¹⁰ times the roundings of this network: its float32 forward's, 2²⁹ times smaller."""
    prior = transformer(sizes)
    codes, given_words = random_codes(sizes, 3, *shape), Caption(words=random_words(3))
    with torch.no_grad():
        single = prior(codes, given_words)
        forward = prior.double()(codes, given_words)
    off = max(float((one - other).abs().max()) for one, other in zip(single, forward, strict=True))
    steps = prior.start(3, shape, given_words)
    for row, column, codebook in places(*codes.shape[1:]):
        difference = steps.logits() - forward[codebook][:, row, column]
        assert difference.abs().max() <= off * 2.0 ** (10 - 29)
        steps.append(codes[:, row, column, codebook])
    assert not steps.left


@all_sizes
def test_probabilities_of_all_captions_and_images_sum_to_one(sizes: tuple[int, ...]) -> None:
    """p(words) over captions, and p(codes | words) over images: in float64, whose roundings are far below 2⁻³⁰."""
    prior = transformer(sizes).double()
    captions = torch.cartesian_prod(*[torch.arange(VOCABULARY_SIZE)] * LENGTH)
    ranges = [torch.arange(size) for _ in range(2) for size in sizes]
    images = torch.cartesian_prod(*ranges).view(-1, 1, 2, len(sizes))
    with torch.no_grad():
        of_words, _ = prior.joint_bits(images[:1].expand(len(captions), -1, -1, -1), captions)
        of_codes = prior.joint_bits(images, captions[7].expand(len(images), -1))[1]
        again = prior.bits(images, Caption(words=captions[7].expand(len(images), -1)))
    for each in (of_words, of_codes):
        assert float((2**-each).sum()) == pytest.approx(1, abs=2**-30)
        assert each.std() > 0.1
    assert torch.equal(of_codes, again)


def test_the_loss_weighs_bits_of_codes_and_of_words() -> None:
    prior = transformer((4,))
    codes, words = random_codes((4,), 6, 2, 3), random_words(6)
    with torch.no_grad():
        of_words, of_codes = prior.joint_bits(codes, words)
    for options, weight in (({}, 1 / 7), ({"text_weight": 0.0}, 0.0), ({"text_weight": 2.0}, 2.0)):
        expected = of_codes.mean() / 6 + weight * of_words.mean() / LENGTH
        assert prior.loss(codes, words, **options).item() == pytest.approx(float(expected), rel=2**-20)


@all_sizes
def test_every_weight_has_a_part_in_the_loss(sizes: tuple[int, ...]) -> None:
    prior = transformer(sizes)
    words = torch.arange(8 * LENGTH).view(8, LENGTH) % VOCABULARY_SIZE
    prior.loss(random_codes(sizes, 8, 4, 5), words).backward()
    for name, parameter in prior.named_parameters():
        used = (parameter.grad != 0).flatten(1).any(1) if parameter.dim() > 1 else (parameter.grad != 0).any()
        assert used.all(), name


def test_training_learns_the_words_and_what_they_mean() -> None:
    """Each of four captions has an image of its own: two bits for the words, none for the codes."""
    prior = transformer((4,), 1.0).train()
    words = torch.tensor([[1, 2, 0], [1, 3, 0], [4, 2, 0], [4, 3, 0]])
    codes = torch.arange(4)[:, None, None, None].expand(-1, 2, 2, 1)
    optimizer = torch.optim.Adam(prior.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        prior.loss(codes, words).backward()
        optimizer.step()
    prior.eval()
    with torch.no_grad():
        of_words, of_codes = prior.joint_bits(codes, words)
    assert of_words.mean().item() == pytest.approx(2, abs=0.2)
    assert of_codes.mean() < 0.2
    drawn = sample(prior, 4, (2, 2), Caption(words=words), temperature=0.5, generator=torch.Generator())
    assert torch.equal(drawn, codes)


# Guidance


@given(guidance=st.sampled_from([0.0, 0.5, 2.5]), seed=st.integers(0, 99))
def test_guidance_extends_the_line_from_no_caption_to_the_caption(guidance: float, seed: int) -> None:
    """Up to roundings: logits of size L are summed with weights of at most 3.5, in float64."""
    torch.manual_seed(seed)
    prior = transformer((3, 5)).double()
    codes, words = random_codes((3, 5), 2, 2, 2), random_words(2)
    with torch.no_grad():
        captioned = prior(codes, Caption(words=words))
        alone = prior(codes, Caption(words=torch.full_like(words, PADDING)))
    steps = start_guided(prior, words, (2, 2), guidance)
    for row, column, codebook in places(2, 2, 2):
        one, other = (each[codebook][:, row, column] for each in (captioned, alone))
        size = float(max(one.abs().max(), other.abs().max()))
        expected = (1 + guidance) * one - guidance * other
        assert (steps.logits() - expected).abs().max() <= 2**10 * (1 + size) * 2**-52
        steps.append(codes[:, row, column, codebook])


def test_a_sample_without_guidance_is_one_of_the_prior() -> None:
    prior, words = transformer((3, 5)), random_words(5)
    first = sample(prior, 5, (2, 3), Caption(words=words), generator=torch.Generator().manual_seed(1))
    again, guided = (
        sample_steps(start_guided(prior, words, (2, 3), guidance), generator=torch.Generator().manual_seed(1))
        for guidance in (0.0, 5.0)
    )
    assert torch.equal(first, again)
    assert first.shape == guided.shape == (5, 2, 3, 2)
    assert not torch.equal(first, guided)


def test_unsuitable_conditions_and_scales_are_named() -> None:
    prior, codes = transformer((4,)), random_codes((4,), 2, 2, 3)
    for condition, message in (
        (None, "condition is None; expected a Caption with words"),
        (Condition(torch.zeros(2).long()), "expected a Caption with words"),
        (Caption(words=torch.zeros(2, 4).long()), r"words have shape \(2, 4\), expected \[B, 3\]"),
        (Caption(words=torch.zeros(3, 3).long()), "there are 3 captions, expected 2"),
        (Caption(words=torch.full((2, 3), 5)), "words hold 5: expected 0 to 4"),
        (Caption(words=torch.zeros(2, 3)), "words have dtype torch.float32"),
    ):
        with pytest.raises(InputError, match=message):
            prior.bits(codes, condition)
    with pytest.raises(InputError, match=r"grid is 5 × 5, expected at most 4 × 5"):
        prior.start(2, (5, 5), Caption(words=random_words(2)))
    for guidance in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="guidance is"):
            start_guided(prior, random_words(2), (2, 2), guidance)


# The stage


AUTOENCODER = dataclasses.replace(AUTOENCODING[DIGITS], quantizer="vq", codebook_size=8, dim=4, width=4)
SHORT = Captioning(width=8, layers=1, steps=4, batch_size=8, samples=1)


def untrained(**options: Any) -> Trained:
    settings = dataclasses.replace(AUTOENCODER, **options)
    source = open_source(settings)
    return Trained(settings, source, levels.build(settings, source.channels).eval(), torch.zeros(1))


def run(trained: Trained, folder: Path, settings: Captioning = SHORT) -> dict[str, Any]:
    return text_stage.run(trained, settings, folder, Bars(Console(file=io.StringIO())))


class Stopped(Exception):
    """A process that ends in the middle."""


@pytest.mark.parametrize("quantizer", ["vq", "residual:num_quantizers=2"])
def test_the_stage_runs_and_goes_on_where_it_was_stopped(
    quantizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    trained = untrained(quantizer=quantizer)
    whole = run(trained, tmp_path / "whole")
    seen: list[int] = []

    def stop(step: int, loss: Tensor) -> None:
        seen.append(step)
        if len(seen) == 3:
            raise Stopped

    (tmp_path / "stopped").mkdir()
    data, _ = text_stage.describe(trained)
    with pytest.raises(Stopped):
        text_stage.fit(SHORT, trained, data, tmp_path / "stopped", stop)
    torch.rand(7)  # whatever else the next process draws
    assert run(trained, tmp_path / "stopped") == whole
    text_stage.fit(SHORT, trained, data, tmp_path / "stopped", lambda step, loss: seen.append(step))
    assert seen == [1, 2, 3, 4]
    for folder in ("whole", "stopped"):
        assert (tmp_path / folder / text_stage.PICTURE).is_file()


def test_the_record_has_its_tables(tmp_path: Path) -> None:
    record = run(untrained(), tmp_path)
    bits, images = text_report.sheets(record)
    assert [len(row) for row in bits.rows] == [len(bits.headings)] * 3
    assert [row[0] for row in images.rows] == [each["name"] for each in record["samples"]]
    assert all(len(row) == len(images.headings) for row in images.rows)
    for each in (record["training"], record["held_out"]):
        assert all(0 < number < 64 for number in each.values())


def test_held_out_images_follow_their_own_captions_and_others_do_not() -> None:
    judge = text_samples.Judge(TRAIN)
    own = text_samples.Asked(HELD_OUT.labels, judge.captioner.thirds(HELD_OUT))
    record = judge.record("own", own, HELD_OUT.images)
    assert record["recognised"] > 0.95
    for each in record["attributes"]:
        assert each["followed"] == [1, 1, 1]
        assert each["means"] == sorted(each["means"])
    turned = judge.record("turned", own, HELD_OUT.images.roll(1, 0))
    assert turned["recognised"] < 0.5
    assert all(share < 0.7 for each in turned["attributes"] for share in each["followed"])


def test_every_caption_is_asked_for_as_often() -> None:
    asked = text_samples.every_caption(3)
    assert len(asked.captions) == 3 * 90
    assert {asked.captions.count(each) for each in set(asked.captions)} == {3}
    assert set(text_samples.PROMPTS) <= set(asked.captions)


def test_autoencoders_and_settings_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one of digits with 2 levels; expected digits and one level"):
        run(untrained(levels=2), tmp_path)
    with pytest.raises(InputError, match="width is 10, expected a multiple of heads=4"):
        run(untrained(), tmp_path, dataclasses.replace(SHORT, width=10))
