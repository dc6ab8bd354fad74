"""EnCodec's own quantizer and its stages, in a stand-in: the package needs torchaudio."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import quantizers
from quantizers import DeadCodeReplacement, plug_in, take_codebook, unplug, warm_start
from tests.adapters.audio import stand_in_encodec as foreign
from tests.adapters.common import BANDWIDTHS, METHODS, RATES, loss_falls, stages_agree, tones

WIDTH, CODES, STAGES, RATE = 8, 32, 4, 100
EPS = torch.finfo(torch.float32).eps


def quantizer(seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    built = foreign.ResidualVectorQuantizer(WIDTH, STAGES, CODES, **options)
    for place, layer in enumerate(built.vq.layers):
        book = layer._codebook
        book.embed.mul_(0.5**place)
        book.cluster_size.uniform_(1, 9)
        book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
    return built


def model() -> Any:
    return foreign.EncodecModel(quantizer(), RATE)


def vectors(seed: int = 1, n: int = 40) -> Tensor:
    return torch.randn(2, WIDTH, n, generator=torch.Generator().manual_seed(seed))


def rows(x: Tensor) -> Tensor:
    return x.movedim(1, -1).reshape(-1, x.shape[1])


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    codec = plug_in(model(), name)
    audio = tones()

    def losses() -> tuple[Tensor, Tensor]:
        result = codec.quantizer(codec.encoder(audio), RATE)
        return F.mse_loss(codec.decoder(result.quantized), audio), result.penalty

    loss_falls(codec, losses)
    codec.eval()
    for bandwidth, count in ((0.5, 1), (1.0, 2), (2.1, 4), (None, 4)):
        codec.bandwidth = bandwidth
        z = codec.encoder(audio)
        result = codec.quantizer(z, RATE, bandwidth)
        assert result.codes.shape == (count, 2, 20)
        assert torch.equal(codec.encode(audio), result.codes.transpose(0, 1))
        torch.testing.assert_close(codec.quantizer.decode(result.codes), result.quantized)
        torch.testing.assert_close(codec(audio), codec.decoder(result.quantized))


def test_a_result_is_read_as_theirs() -> None:
    names = [[part.name for part in dataclasses.fields(kind)] for kind in (foreign.QuantizedResult,)]
    codec = plug_in(model(), "vq")
    result = codec.quantizer(vectors(), RATE, 1.0)
    assert [part.name for part in dataclasses.fields(result)] == names[0]
    assert result.penalty.shape == result.bandwidth.shape == ()
    assert result.bandwidth == 1.0  # two codebooks of five bits, a hundred times a second
    assert result.metrics == {}
    losses = codec.quantizer.quantizer.forward_stages(vectors(), num_codebooks=2).loss
    torch.testing.assert_close(result.penalty, losses.mean(), rtol=0, atol=0)


@pytest.mark.parametrize("bins", [2, 1024])
def test_as_many_codebooks_as_theirs_for_a_bandwidth(bins: int) -> None:
    reference = foreign.ResidualVectorQuantizer(2, STAGES, bins)
    new = plug_in(reference, "vq")
    assert (new.n_q, new.bins, new.dimension) == (STAGES, bins, 2)
    seen = set()
    for rate, bandwidth in itertools.product(RATES, BANDWIDTHS):
        asked = reference.get_num_quantizers_for_bandwidth(rate, bandwidth)
        assert new.get_num_quantizers_for_bandwidth(rate, bandwidth) == min(asked, STAGES)
        seen.add(asked)
    assert seen >= {*range(1, STAGES + 3)}


@pytest.mark.parametrize("name", METHODS)
def test_kept_codebooks_give_what_the_model_gave(name: str) -> None:
    codec, z = model().eval(), vectors()
    original, codebook = codec.quantizer, take_codebook(codec)
    assert codebook.shape == (STAGES, CODES, WIDTH)
    if name == "fsq":
        with pytest.raises(ValueError, match="scales or bounds the input of its stages"):
            plug_in(codec, name, keep_codebook=True)
        assert codec.quantizer is original
        return
    plug_in(codec, name, keep_codebook=True)
    assert torch.equal(take_codebook(codec), codebook)
    for bandwidth in (1.0, None):
        reference, new = original.encode(z, RATE, bandwidth), codec.quantizer.encode(z, RATE, bandwidth)
        stages_agree(new.flatten(1), reference.flatten(1), rows(z), codebook)
        assert torch.equal(codec.quantizer.decode(reference), original.decode(reference))
    assert unplug(codec).quantizer is original


def test_ema_goes_on_as_theirs_would_have() -> None:
    """Codes, averages and penalty of a step in training, by the first two codebooks and the model's own decay."""
    reference, z = quantizer(decay=0.75).train(), vectors(n=100)
    new = plug_in(quantizer(decay=0.75).train(), "ema_vq", keep_codebook=True)
    expected, found = reference(z, RATE, 1.0), new(z, RATE, 1.0)
    assert torch.equal(found.codes, expected.codes)
    assert found.bandwidth == expected.bandwidth
    torch.testing.assert_close(found.penalty, expected.penalty)
    for place, part in enumerate(new.quantizer.components):
        book = reference.vq.layers[place]._codebook
        # Counts and sums of n ≤ 200 vectors, in another order, and of residuals that x + (q − x) rounds twice.
        scale = EPS * 200 * z.abs().max()
        torch.testing.assert_close(part.cluster_size, book.cluster_size, rtol=4 * EPS, atol=0)
        assert (part.embedding_sum - book.embed_avg).abs().max() <= scale
        torch.testing.assert_close(part.embedding, book.embed, rtol=8 * EPS, atol=float(scale))
    assert not torch.equal(take_codebook(new)[0], take_codebook(quantizer())[0])
    assert torch.equal(take_codebook(new)[2:], take_codebook(quantizer())[2:])


def test_codes_that_saw_nothing_yet_count_as_one_vector_each() -> None:
    reference = quantizer()
    reference.vq.layers[1]._codebook.cluster_size.zero_()
    first, second = plug_in(reference, "ema_vq", keep_codebook=True).quantizer.components[:2]
    assert torch.equal(first.cluster_size, reference.vq.layers[0]._codebook.cluster_size)
    assert torch.equal(first.embedding_sum, reference.vq.layers[0]._codebook.embed_avg)
    assert torch.equal(second.cluster_size, torch.ones(CODES))
    assert torch.equal(second.embedding_sum, reference.vq.layers[1]._codebook.embed)


# The stages alone


@pytest.mark.parametrize("width", [None, 3])
def test_the_stages_alone_with_projections_of_their_own(width: int | None) -> None:
    torch.manual_seed(0)
    stages = foreign.ResidualVectorQuantization(
        num_quantizers=3, dim=WIDTH, codebook_size=CODES, codebook_dim=width, commitment_weight=0.5
    )
    holder, z = nn.Sequential(stages).eval(), vectors()
    holder = plug_in(holder, "vq", keep_codebook=True, codebook_weight=0.0)
    new = holder[0]
    for count in (None, 2):
        n = count or 3
        expected, indices, _ = stages(z, n_q=count)
        quantized, found, losses = new(z, n_q=count)
        assert found.shape == indices.shape == (n, 2, 40)
        assert losses.shape == (n, 1)
        assert torch.equal(new.encode(z, n_q=count), found)
        if width is None:
            same = stages_agree(found.flatten(1), indices.flatten(1), rows(z), take_codebook(holder)).view(
                2, 1, 40
            )
        else:
            same = (found == indices).all(0)[:, None]
            assert same.float().mean() > 0.9
        torch.testing.assert_close(quantized.where(same, 0.0), expected.where(same, 0.0))
        torch.testing.assert_close(new.decode(indices), stages.decode(indices))
    expected_losses = stages.train()(z)[2]
    torch.testing.assert_close(new.train()(z)[2], expected_losses)


# What does not fit


def test_anothers_class_of_the_same_name_is_not_taken_for_it() -> None:
    """One that does not count by bandwidth: its stages are known, and it is not."""
    reference = quantizer()

    class ResidualVectorQuantizer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vq = reference.vq

    other = plug_in(ResidualVectorQuantizer(), "vq")
    assert type(other).__name__ == "ResidualVectorQuantizer"
    assert type(other.vq).__name__ == "EncodecStagesAdapter"


def test_a_quantizer_without_stages_gives_all_codebooks_or_says_so() -> None:
    codec, z = plug_in(model(), "qinco", hidden_dim=8, blocks=1), vectors()
    result = codec.quantizer(z, RATE)
    assert result.codes.shape == (STAGES, 2, 40)
    assert torch.equal(result.penalty, codec.quantizer.quantizer(z).loss)
    for ask in (codec.quantizer, codec.quantizer.encode):
        with pytest.raises(ValueError, match="2 codebooks are requested, but QINCo always uses its 4"):
            ask(z, RATE, 1.0)
    with pytest.raises(ValueError, match="QINCo, which cannot keep the codebooks of stages"):
        plug_in(model(), "qinco", keep_codebook=True)
    with pytest.raises(ValueError, match="shares its codebook; expected 4 codebooks"):
        plug_in(model(), "vq", shared=True, keep_codebook=True)


def test_stages_with_several_codebooks_are_used_whole() -> None:
    pairs = [quantizers.create("grouped", dim=WIDTH, codebook_size=CODES) for _ in range(2)]
    codec = plug_in(model(), quantizers.ResidualQuantizer(WIDTH, pairs, channel_dim=1))
    for bandwidth, count in ((0.5, 2), (1.5, 2), (2.0, 4), (9.0, 4)):
        result = codec.quantizer(vectors(), RATE, bandwidth)
        assert result.codes.shape == (count, 2, 40)
        assert result.bandwidth == count * 0.5


def test_training_aids_see_what_the_adapter_quantizes() -> None:
    """It calls the stages by themselves, for their losses."""
    codec = plug_in(model(), "vq").train()
    replacement = DeadCodeReplacement(codec, torch.optim.Adam(codec.parameters()), threshold=0.9, decay=0.0)
    codec.quantizer(codec.encoder(tones()), RATE)
    assert replacement.step() > 0
    before = take_codebook(codec)
    warm_start(codec.quantizer, [(vectors(), RATE)])
    assert (take_codebook(codec) != before).any(-1).all()
