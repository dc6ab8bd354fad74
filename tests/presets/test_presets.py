"""Presets: they build, agree with what their sources say, and take options of the user's."""

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal

import pytest
import torch
from torch import Tensor

import quantizers
from quantizers import presets
from quantizers.core.arguments.options import UnknownOptionError
from quantizers.presets.split_residual import split_residual

NAMES = presets.available()
AT_LEAST = {
    *("chameleon", "janus", "llamagen", "titok_l32", "titok_b64", "titok_s128", "emu3.5", "open_magvit2"),
    *("infinity", "var", "cosmos_di16x16", "cosmos_dv8x16x16", "vidtok_4x8x8_262144", "cosyvoice2", "xcodec2"),
    *("neucodec", "nanocodec_0.6kbps", "mimi", "dac_44khz", "encodec_24khz", "snac_24khz", "snac_32khz"),
    *("snac_44khz", "best_rq", "wav2vec2", "vq_bet", "tiger"),
}
SEQUENCE = 64  # vectors in time, a multiple of the strides of every scale
FEW = 4  # vectors, where each is quantized by itself


def create(name: str, **options: object) -> quantizers.Quantizer:
    torch.manual_seed(0)
    return quantizers.create(f"preset:{name}", **options)


def codebooks(quantizer: quantizers.Quantizer) -> Iterator[quantizers.Quantizer]:
    """The quantizers with one codebook that a quantizer is made of; a shared one once."""
    parts = getattr(quantizer, "components", None)
    if parts is None:
        yield quantizer
    for part in dict.fromkeys(parts or ()):
        yield from codebooks(part)


def vectors(name: str, quantizer: quantizers.Quantizer) -> Tensor:
    """Input [2, ..., dim]: maps of the model's size or long sequences, where the method looks at whole maps."""
    size, shape = presets.get(name).published.vectors, (FEW,)
    if isinstance(quantizer, quantizers.MapQuantizer):
        shape = size if isinstance(size, tuple) else (SEQUENCE,)
    return torch.randn(2, *shape, quantizer.dim, generator=torch.Generator().manual_seed(0))


def indices_per_unit(name: str, x: Tensor, indices: Tensor) -> float:
    """Indices for all vectors of a unit, such as an image or a second, from the indices of x."""
    size = presets.get(name).published.vectors
    count = math.prod(size) if isinstance(size, tuple) else size
    return indices[0].numel() / math.prod(x.shape[1:-1]) * count


def test_the_models_that_were_asked_for_are_there() -> None:
    assert set(NAMES) >= AT_LEAST
    assert list(NAMES) == sorted(set(NAMES))
    assert not any(":" in name for name in (*NAMES, *quantizers.available()))


@pytest.mark.parametrize("name", NAMES)
def test_options_agree_with_what_the_source_says(name: str) -> None:
    published, built = presets.get(name).published, create(name)
    books = list(codebooks(built))
    assert len(books) == published.num_codebooks
    assert {book.codebook_size for book in books} == {published.codebook_size}
    assert {book.code_dim for book in books} == {published.code_dim}
    if published.codebook_size >= 2**18:  # an implicit codebook, which must not be written down
        assert sum(tensor.numel() for tensor in [*built.parameters(), *built.buffers()]) < 2**10


@pytest.mark.parametrize("name", NAMES)
def test_indices_decode_to_the_values_at_the_published_rate(name: str) -> None:
    published, built = presets.get(name).published, create(name).eval()
    x = vectors(name, built)
    with torch.no_grad():
        quantized, indices, loss = built(x)
        decoded = built.decode(indices)
    assert quantized.shape == x.shape
    assert torch.isfinite(loss).all()
    assert int(indices.min()) >= 0
    assert int(indices.max()) < published.codebook_size
    # A projection may group its sums in another way for the vectors of decode: each of its outputs, of at most
    # 2048 products of numbers below 8, then differs by less than 2048 · 2⁻²⁴ of their sum.
    torch.testing.assert_close(decoded, quantized, rtol=2048 * 2.0**-24, atol=2048 * 2.0**-24)

    per_unit = indices_per_unit(name, x, indices)
    if published.indices is not None:
        assert per_unit == published.indices
    if published.bitrate:
        rate = Decimal(per_unit * math.log2(published.codebook_size) / 1000)
        stated = Decimal(published.bitrate)
        assert rate.quantize(stated) == stated


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_builds_the_same_quantizer(name: str) -> None:
    saved = json.loads(json.dumps(quantizers.configuration(create(name))))
    torch.manual_seed(0)
    assert repr(quantizers.rebuild(saved)) == repr(create(name))


@pytest.mark.parametrize("name", NAMES)
def test_it_trains(name: str) -> None:
    built = create(name).train()
    x = vectors(name, built).requires_grad_()
    quantized, _, loss = built(x)
    (quantized.square().mean() + loss.sum()).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_options_of_the_user_come_first(name: str) -> None:
    dim = 2 * int(presets.get(name).options["dim"])  # type: ignore[call-overload]
    built = create(name, dim=dim, channel_dim=1)
    assert built.dim == dim
    x = vectors(name, built).movedim(-1, 1)
    assert built.eval()(x).quantized.shape == x.shape


@pytest.mark.parametrize("name", NAMES)
def test_options_are_listed_with_the_values_of_the_preset(name: str) -> None:
    preset, listed = presets.get(name), quantizers.options(f"preset:{name}")
    assert {option: listed[option] for option in preset.options} == dict(preset.options)
    assert set(listed) >= set(quantizers.options(preset.method))
    assert repr(listed).startswith(f"options of 'preset:{name}':")
    with pytest.raises(UnknownOptionError) as raised:
        create(name, no_such_option=1)
    assert list(raised.value.takes[f"preset:{name}"]) == list(listed)


@pytest.mark.parametrize("name", NAMES)
def test_each_says_where_its_numbers_are_from(name: str) -> None:
    preset = presets.get(name)
    assert preset.name == name
    assert re.match(r"arXiv \d{4}\.\d{5}\b|[\w-]+/[\w.-]+, \w+", preset.source), "neither a paper nor a repository"
    assert preset.model
    assert preset.published.per
    assert not preset.note or preset.note.endswith(".")


def test_presets_do_not_change() -> None:
    preset = presets.get("mimi")
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset.name = "another"  # type: ignore[misc]
    with pytest.raises(TypeError, match="does not support item assignment"):
        preset.options["dim"] = 1  # type: ignore[index]
    create("mimi", num_quantizers=4)
    assert preset.options["num_quantizers"] == 8


@pytest.mark.parametrize(
    ("wrong", "near"), [("mim", "mimi"), ("DAC", "dac_44khz"), ("titok", "titok_b64"), ("snac", "snac_24khz")]
)
def test_an_unknown_preset_is_answered_with_near_ones(wrong: str, near: str) -> None:
    for call in (presets.get, create, lambda name: quantizers.options(f"preset:{name}")):
        with pytest.raises(ValueError, match=f"no preset is named {wrong!r}; did you mean .*{near!r}.*there are"):
            call(wrong)


def test_a_preset_without_its_prefix_is_pointed_at() -> None:
    with pytest.raises(ValueError, match="no quantizer is named 'mimi'; did you mean 'preset:mimi'"):
        quantizers.create("mimi", 8, 16)


def test_names_with_other_schemes_are_unknown() -> None:
    for name in ("presets:mimi", "preset", "preset:", ":mimi", "mimi"):
        with pytest.raises(ValueError, match="is named"):
            quantizers.create(name)


def test_a_preset_is_a_quantizer_by_name_wherever_one_is_expected() -> None:
    nested = quantizers.create("grouped", dim=16, quantizer="preset:llamagen", num_groups=2, codebook_size=32)
    assert [group.codebook_size for group in nested.groups] == [32, 32]
    assert [group.distance for group in nested.groups] == ["cosine", "cosine"]


def test_the_halves_of_a_split_residual_quantizer_see_the_same_vectors() -> None:
    torch.manual_seed(0)
    split = split_residual(8, 16, num_quantizers=5, num_semantic=2, stage_dim=4, channel_dim=1).eval()
    x = torch.randn(3, 8, 10)
    quantized, indices, _ = split(x)
    rows = x.movedim(1, -1)
    outs = [half(rows) for half in split.components]
    assert [out.indices.shape[-1] for out in outs] == [2, 3]
    assert torch.equal(indices, torch.cat([out.indices for out in outs], -1))
    mean = sum(out.quantized for out in outs) / 2
    # Both halve the values of the parts, which is exact, and add them once.
    assert torch.equal(quantized, mean.movedim(-1, 1))


def test_a_split_residual_quantizer_needs_codebooks_for_both_halves() -> None:
    with pytest.raises(ValueError, match="num_quantizers is 1, expected more than num_semantic, 1"):
        create("mimi", num_quantizers=1)
    with pytest.raises(UnknownOptionError, match="no_such_option") as raised:
        create("mimi", no_such_option=1)
    assert "num_semantic" in raised.value.takes["preset:mimi"]
