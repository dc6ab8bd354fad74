"""audiocraft's quantizer, in a stand-in: the package needs versions of others that this project does not use."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import quantizers
from quantizers import plug_in, take_codebook, unplug
from quantizers.adapters import plugged
from quantizers.adapters.contracts.audio.audiocraft import QuantizedResult
from tests.adapters.audio import stand_in_audiocraft as foreign
from tests.adapters.audio import test_encodec
from tests.adapters.common import METHODS, check_unplugs, loss_falls, stages_agree, tones

WIDTH, CODES, STAGES, RATE = 8, 32, 4, 100
EPS = torch.finfo(torch.float32).eps


def quantizer(seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    built = foreign.ResidualVectorQuantizer(WIDTH, STAGES, bins=CODES, **options)
    for place, layer in enumerate(built.vq.layers):
        book = layer._codebook
        book.embed.mul_(0.5**place)
        book.cluster_size.uniform_(1, 9)
        book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
    return built


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"audiocraft": quantizer}


def model(**options: Any) -> Any:
    return foreign.EncodecModel(quantizer(**options), WIDTH, RATE)


def vectors(seed: int = 1, n: int = 40) -> Tensor:
    return torch.randn(2, WIDTH, n, generator=torch.Generator().manual_seed(seed))


def rows(x: Tensor) -> Tensor:
    return x.movedim(1, -1).reshape(-1, x.shape[1])


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    codec, audio = plug_in(model(), name), tones()

    def losses() -> tuple[Tensor, Tensor]:
        result = codec(audio)
        return F.mse_loss(result.x, audio), result.penalty

    loss_falls(codec, losses)
    codec.eval()
    for count in (1, 3, STAGES):
        codec.set_num_codebooks(count)
        assert (codec.num_codebooks, codec.total_codebooks) == (count, STAGES)
        result, codes = codec(audio), codec.encode(audio)
        assert codes.shape == (2, count, 20)
        assert torch.equal(codes, result.codes)
        torch.testing.assert_close(codec.decode(codes), result.x)
        assert result.bandwidth == torch.tensor(count * math.log2(codec.cardinality) * RATE / 1000)


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
    for count in (2, STAGES):
        original.set_num_codebooks(count)
        codec.set_num_codebooks(count)
        reference, new = original.encode(z), codec.quantizer.encode(z)
        assert new.shape == reference.shape == (2, count, 40)
        columns = (codes.transpose(0, 1).flatten(1) for codes in (new, reference))
        stages_agree(*columns, rows(z), codebook)
        assert torch.equal(codec.quantizer.decode(reference), original.decode(reference))
        assert torch.equal(codec.quantizer(z, RATE).bandwidth, original(z, RATE).bandwidth)


def test_a_saved_state_loads_into_the_same_codec() -> None:
    codecs, audio = [plug_in(model(seed=seed), "simvq").eval() for seed in (0, 1)], tones()
    first, second = codecs
    assert not torch.equal(first(audio).x, second(audio).x)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(audio).x, second(audio).x)
    assert torch.equal(first.encode(audio), second.encode(audio))


def test_unplug_puts_back_what_stood_there() -> None:
    codec, audio = model().eval(), tones()
    check_unplugs(codec, "quantizer", lambda: codec(audio).x)


def test_ema_goes_on_as_theirs_would_have() -> None:
    """Codes, averages and penalty of a step in training, by the first two codebooks and the model's own decay."""
    reference, z = quantizer(decay=0.75).train(), vectors(n=100)
    new = plug_in(quantizer(decay=0.75).train(), "ema_vq", keep_codebook=True)
    for side in (reference, new):
        side.set_num_codebooks(2)
    expected, found = reference(z, RATE), new(z, RATE)
    assert torch.equal(found.codes, expected.codes)
    torch.testing.assert_close(found.penalty, expected.penalty)
    for place, part in enumerate(new.quantizer.components):
        book = reference.vq.layers[place]._codebook
        # Counts and sums of n ≤ 200 vectors, in another order, and of residuals that x + (q − x) rounds twice.
        scale = EPS * 200 * z.abs().max()
        torch.testing.assert_close(part.cluster_size, book.cluster_size, rtol=4 * EPS, atol=0)
        assert (part.embedding_sum - book.embed_avg).abs().max() <= scale
        torch.testing.assert_close(part.embedding, book.embed, rtol=8 * EPS, atol=float(scale))
    assert torch.equal(take_codebook(new)[2:], take_codebook(quantizer())[2:])


def test_the_result_is_of_their_class() -> None:
    """Their training loop checks for it."""
    result = plug_in(quantizer(), "vq")(vectors(), RATE)
    assert type(result) is foreign.QuantizedResult
    assert result.penalty.shape == result.bandwidth.shape == ()
    assert result.penalty.requires_grad
    assert result.metrics == {}


def test_a_class_without_results_of_its_own_gets_ours() -> None:
    sizes = {"dim": WIDTH, "codebook_size": CODES, "num_quantizers": STAGES}
    adapter = plug_in(nn.Sequential(nn.Identity()), "vq", at="0", contract="audiocraft", **sizes)[0]
    assert type(adapter(vectors(), RATE)) is QuantizedResult
    assert adapter.num_codebooks == STAGES


@pytest.mark.parametrize("active", [STAGES, 3])
def test_dropout_uses_the_first_codebooks(active: int) -> None:
    """As many as the original draws, from the same generator; each count from 1 to those in use."""
    reference, z = quantizer(q_dropout=True), vectors()
    new = plug_in(quantizer(q_dropout=True), "vq", keep_codebook=True)
    reference.set_num_codebooks(active)
    new.set_num_codebooks(active)
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        expected = reference.train()(z, RATE)
        torch.manual_seed(seed)
        found = new.train()(z, RATE)
        assert found.codes.shape == expected.codes.shape
        assert found.bandwidth == expected.bandwidth
        losses = new.quantizer.forward_stages(z, num_codebooks=found.codes.shape[1]).loss
        assert torch.equal(found.penalty, losses.mean())
        seen.add(found.codes.shape[1])
    assert seen == {*range(1, active + 1)}
    assert new.eval()(z, RATE).codes.shape == (2, active, 40)
    new.train().q_dropout = False
    assert new(z, RATE).codes.shape == (2, active, 40)


def test_the_codebooks_in_use_are_those_of_the_original() -> None:
    codec = model()
    codec.set_num_codebooks(3)
    assert plug_in(codec, "vq").num_codebooks == 3
    assert plug_in(codec, "vq", num_quantizers=2).num_codebooks == 2
    with pytest.raises(ValueError, match="3 codebooks are requested, but QINCo always uses its 4"):
        plug_in(codec, "qinco", hidden_dim=8, blocks=1)
    assert list(plugged(codec)) == ["quantizer"]
    for n in (0, 3):
        with pytest.raises(ValueError, match=f"n is {n}, expected a number of codebooks from 1 to 2"):
            codec.set_num_codebooks(n)
    unplug(codec)
    assert codec.num_codebooks == 3


@pytest.mark.parametrize(("training", "active"), [(False, 3), pytest.param(True, STAGES, marks=pytest.mark.long)])
def test_a_model_is_one_graph(training: bool, active: int) -> None:
    codec, audio = plug_in(model(), "ema_vq").train(training), tones()
    codec.set_num_codebooks(active)
    compiled = torch.compile(copy.deepcopy(codec), backend="eager", fullgraph=True)
    expected, found = codec(audio), compiled(audio)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.x, expected.x)
    assert torch.equal(found.penalty, expected.penalty)


def test_a_quantizer_without_stages_gives_all_codebooks_or_says_so() -> None:
    codec, z = plug_in(model(q_dropout=True), "qinco", hidden_dim=8, blocks=1).train(), vectors()
    for _ in range(8):  # nothing is left out
        assert codec.quantizer(z, RATE).codes.shape == (2, STAGES, 40)
    with pytest.raises(ValueError, match="2 codebooks are requested, but QINCo always uses its 4"):
        codec.set_num_codebooks(2)
    assert codec.num_codebooks == STAGES


def test_stages_with_several_codebooks_are_used_whole() -> None:
    pairs = [quantizers.create("grouped", dim=WIDTH, codebook_size=CODES) for _ in range(2)]
    codec = plug_in(model(), quantizers.ResidualQuantizer(WIDTH, pairs, channel_dim=1))
    for asked, count in ((1, 2), (3, 2), (4, 4)):
        codec.set_num_codebooks(asked)
        assert codec.num_codebooks == count
        assert codec.quantizer(vectors(), RATE).codes.shape == (2, count, 40)


def test_each_package_keeps_its_class() -> None:
    """EnCodec's quantizer has the same name, and counts by bandwidth."""
    assert type(plug_in(quantizer(), "vq")).__name__ == "AudiocraftAdapter"
    assert type(plug_in(test_encodec.quantizer(), "vq")).__name__ == "EncodecAdapter"
