"""The quantizers of moshi's package, one half of a split one or alone, in a stand-in."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers import plug_in, take_codebook, unplug, warm_start
from quantizers.adapters import plugged
from tests.adapters.audio import stand_in_moshi as foreign
from tests.adapters.audio import test_audiocraft
from tests.adapters.common import METHODS, loss_falls, stages_agree, tones

HIDDEN, WIDTH, CODES, STAGES, SEMANTIC, RATE = 12, 8, 32, 4, 1, 100
PATHS = ["quantizer.rvq_first", "quantizer.rvq_rest"]
EPS = torch.finfo(torch.float32).eps


def filled(quantizer: Any) -> Any:
    """With codes and averages that are as if trained."""
    for module in quantizer.modules():
        if isinstance(module, foreign.ResidualVectorQuantization):
            for place, layer in enumerate(module.layers):
                book = layer._codebook
                book.cluster_usage.uniform_(0, 9)
                book.cluster_usage[0] = 0  # below its bound
                book.embedding_sum.normal_().mul_(0.5**place * book.cluster_usage[:, None])
    return quantizer


def alone(seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    options = {"dimension": WIDTH, "n_q": STAGES, "bins": CODES, **options}
    return filled(foreign.ResidualVectorQuantizer(**options))


def split(seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    sizes = {"dimension": WIDTH, "input_dimension": HIDDEN, "output_dimension": HIDDEN, "bins": CODES}
    return filled(foreign.SplitResidualVectorQuantizer(n_q=STAGES, n_q_semantic=SEMANTIC, **sizes, **options))


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"moshi": lambda: alone(input_dimension=HIDDEN)}


def model(seed: int = 0, **options: Any) -> Any:
    return foreign.MimiModel(split(seed, **options), HIDDEN, RATE)


def halves(codec: Any) -> list[Any]:
    return [codec.get_submodule(path) for path in PATHS]


def vectors(channels: int = HIDDEN, n: int = 40) -> Tensor:
    return torch.randn(2, channels, n, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    codec, audio = model(), tones()
    assert plug_in(codec, name) is codec
    assert list(plugged(codec)) == PATHS
    assert type(codec.quantizer) is foreign.SplitResidualVectorQuantizer

    def losses() -> tuple[Tensor, Tensor]:
        result = codec(audio)
        return F.mse_loss(result.x, audio), result.penalty

    loss_falls(codec, losses)
    codec.eval()
    for count in (SEMANTIC, 3, STAGES):
        codec.set_num_codebooks(count)
        assert (codec.num_codebooks, codec.total_codebooks) == (count, STAGES)
        result, codes = codec(audio), codec.encode(audio)
        assert codes.shape == (2, count, 20)
        assert torch.equal(codes, result.codes)
        torch.testing.assert_close(codec.decode(codes), result.x)


@pytest.mark.parametrize("name", METHODS)
def test_kept_codebooks_give_what_the_model_gave(name: str) -> None:
    codec, z = model().eval(), vectors()
    originals, codebook = halves(codec), take_codebook(codec)
    assert codebook.shape == (STAGES, CODES, WIDTH)
    if name == "fsq":
        with pytest.raises(ValueError, match="scales or bounds the input of its stages"):
            plug_in(codec, name, keep_codebook=True)
        assert halves(codec) == originals
        return
    before = codec.quantizer(z, RATE)
    plug_in(codec, name, keep_codebook=True)
    assert torch.equal(take_codebook(codec), codebook)
    found, start, everywhere = codec.quantizer(z, RATE), 0, []
    assert found.bandwidth == before.bandwidth
    for half, original in zip(halves(codec), originals, strict=True):
        own = slice(start, start + original.max_n_q)
        new, reference = (out.codes[:, own].transpose(0, 1).flatten(1) for out in (found, before))
        rows = original.input_proj(z).movedim(1, -1).reshape(-1, WIDTH)
        # The original's distances are square roots: each rounding is of one of two distances, which are at most
        # twice the scale.
        everywhere.append(stages_agree(new, reference, rows, codebook[own], more=4))
        assert torch.equal(half.decode(before.codes[:, own]), original.decode(before.codes[:, own]))
        start = own.stop
    same = torch.stack(everywhere).all(0).view(2, 1, 40)
    torch.testing.assert_close(found.x.where(same, 0.0), before.x.where(same, 0.0))


def test_ema_goes_on_as_theirs_would_have() -> None:
    """Averages and penalty of a step in training, of both halves, at the model's own decay."""
    codec, z = model(decay=0.75).train(), vectors(n=100)
    reference = copy.deepcopy(codec.quantizer)
    plug_in(codec, "ema_vq", keep_codebook=True)
    expected, found = reference(z, RATE), codec.quantizer(z, RATE)
    assert torch.equal(found.codes, expected.codes)
    torch.testing.assert_close(found.penalty, expected.penalty)
    parts = [part for half in halves(codec) for part in half.quantizer.components]
    books = [layer._codebook for half in (reference.rvq_first, reference.rvq_rest) for layer in half.vq.layers]
    for part, book in zip(parts, books, strict=True):
        # Counts and sums of n ≤ 200 vectors, in another order.
        scale = EPS * 200 * reference.rvq_rest.input_proj(z).abs().max()
        torch.testing.assert_close(part.cluster_size, book.cluster_usage, rtol=4 * EPS, atol=0)
        assert (part.embedding_sum - book.embedding_sum).abs().max() <= scale


def test_halves_draw_and_count_for_themselves() -> None:
    """Only the acoustic half leaves out codebooks, and the module around them weights the penalties by their
    number."""
    codec, z, seen = plug_in(model(q_dropout=True), "vq").train(), vectors(), set()
    for _ in range(20):
        result = codec.quantizer(z, RATE)
        seen.add(result.codes.shape[1])
    assert seen == {2, 3, STAGES}
    codec.eval().set_num_codebooks(SEMANTIC)
    assert codec.quantizer(z, RATE).codes.shape == codec.quantizer.encode(z).shape == (2, SEMANTIC, 40)
    assert halves(codec)[1].num_codebooks == 0


def test_the_halves_are_taken_together_or_one_by_one() -> None:
    codec = model()
    originals = halves(codec)
    plug_in(codec, "simvq", at="quantizer")
    assert list(plugged(codec)) == PATHS
    plug_in(codec, "fsq", at=PATHS[1])
    assert [type(half.quantizer.components[0]).__name__ for half in halves(codec)[:1]] == ["SimVQ"]
    assert type(halves(codec)[1].quantizer.components[0]).__name__ == "FSQ"
    unplug(codec, at=PATHS[0])
    assert halves(codec)[0] is originals[0]
    assert halves(unplug(codec)) == originals


def test_a_saved_state_loads_into_the_same_codec() -> None:
    """With the projections under the names that they had."""
    audio, names = tones(), set(model().state_dict())
    first, second = (plug_in(model(seed), "simvq").eval() for seed in (0, 1))
    projections = {name for name in names if "_proj" in name}
    assert len(projections) == 4
    assert projections <= set(first.state_dict())
    assert not torch.equal(first(audio).x, second(audio).x)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(audio).x, second(audio).x)


def test_unplug_puts_back_what_stood_there() -> None:
    codec, z = model().eval(), vectors()
    originals, before = halves(codec), codec.quantizer(z, RATE)
    keys = set(codec.state_dict())
    plug_in(codec, "simvq")
    assert not any("layers" in key or "original" in key for key in codec.state_dict() if "quantizer" in key)
    assert halves(unplug(codec)) == originals
    assert set(codec.state_dict()) == keys
    assert torch.equal(codec.quantizer(z, RATE).x, before.x)


def test_projections_are_the_models_own() -> None:
    codec = model()
    entry = halves(codec)[0].input_proj.weight
    plug_in(codec, "vq")
    assert halves(codec)[0].input_proj.weight is entry
    codec.quantizer(vectors(), RATE).x.square().mean().backward()
    assert entry.grad.abs().max() > 0


@pytest.mark.parametrize("inner", [None, HIDDEN])
def test_a_quantizer_that_is_not_split(inner: int | None) -> None:
    """With projections and without; it gives its own results, sizes and class of results."""
    original, channels = alone(input_dimension=inner, output_dimension=inner).eval(), inner or WIDTH
    new, z = plug_in(original, "vq", keep_codebook=True), vectors(channels)
    expected, found = original(z, RATE), new(z, RATE)
    assert type(found) is foreign.QuantizedResult
    assert (found.codes == expected.codes).float().mean() > 0.9
    assert found.x.shape == expected.x.shape
    assert found.penalty.shape == expected.penalty.shape == ()
    for name in ("input_dimension", "output_dimension", "dimension", "bins", "cardinality", "n_q", "max_n_q"):
        assert getattr(new, name) == getattr(original, name), name
    for name in ("total_codebooks", "num_codebooks", "ema_frozen"):
        assert getattr(new, name) == getattr(original, name), name
    assert new.semantic_quantizer is new.acoustic_quantizer is new


def test_no_frames_have_no_codes() -> None:
    """As a stream that starts."""
    original = alone(input_dimension=HIDDEN)
    new, z = plug_in(original, "vq"), torch.zeros(2, HIDDEN, 0)
    assert new.encode(z).shape == original.encode(z).shape == (2, STAGES, 0)
    assert new.encode(z).dtype == torch.int64


def test_samples_can_bypass_both_halves() -> None:
    """As with moshi's `no_quantization_rate`: each half passes on what its projection gives."""
    codec, z = plug_in(model(), "bypass", quantizer="ema_vq", probability=1.0).train(), vectors()
    expected = sum(half.output_proj(half.input_proj(z)) for half in halves(codec))
    torch.testing.assert_close(codec.quantizer(z, RATE).x, expected)
    codec.eval().set_num_codebooks(2)
    assert codec.quantizer(z, RATE).codes.shape == (2, 2, 40)


def test_a_model_is_one_graph() -> None:
    codec, audio = plug_in(model(), "ema_vq").eval(), tones()
    compiled = torch.compile(copy.deepcopy(codec), backend="eager", fullgraph=True)
    expected, found = codec(audio), compiled(audio)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.x, expected.x)


def test_freezing_stops_the_averages() -> None:
    new, z = plug_in(alone(), "ema_vq").train(), vectors(WIDTH)
    before = take_codebook(new)
    new.ema_frozen_(True)
    new(z, RATE)
    assert new.ema_frozen
    assert torch.equal(take_codebook(new), before)
    new.ema_frozen_(False)
    new(z, RATE)
    assert not new.ema_frozen
    assert not torch.equal(take_codebook(new), before)


def test_a_model_that_freezes_stages_is_refused() -> None:
    codec = model()
    originals = halves(codec)
    codec.freeze_quantizer = True
    with pytest.raises(ValueError, match="MimiModel has freeze_quantizer=True"):
        plug_in(codec, "vq")
    assert halves(codec) == originals


def test_a_half_has_as_many_codebooks_as_before() -> None:
    codec = model()
    with pytest.raises(ValueError, match="has 2 codebooks, expected the 3 of ResidualVectorQuantizer"):
        plug_in(codec, "vq", at=PATHS[1], num_quantizers=2)
    assert not plugged(codec)


def test_a_model_that_is_cast_gets_its_dtype() -> None:
    codec = plug_in(model(), "vq").to(torch.bfloat16).eval()
    result = codec(tones().to(torch.bfloat16))
    assert result.x.dtype == result.bandwidth.dtype == torch.bfloat16
    assert codec.decode(result.codes).dtype == torch.bfloat16


def test_warm_start_sees_both_halves() -> None:
    codec = plug_in(model(), "vq")
    before = take_codebook(codec)
    warm_start(codec, [tones(), tones().flip(-1)])
    assert (take_codebook(codec) != before).any(-1).all()


def test_each_package_keeps_its_class() -> None:
    """audiocraft's quantizer has the same name; its codes are a buffer."""
    assert type(plug_in(alone(), "vq")).__name__ == "MoshiAdapter"
    assert type(plug_in(test_audiocraft.quantizer(), "vq")).__name__ == "AudiocraftAdapter"
