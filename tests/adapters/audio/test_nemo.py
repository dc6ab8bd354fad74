"""The quantizers of NeMo's audio codecs, in stand-ins: the package needs many others."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import quantizers
from quantizers import plug_in, take_codebook, unplug, warm_start
from quantizers.adapters import plugged
from tests.adapters.audio import stand_in_nemo as foreign
from tests.adapters.audio import test_audiocraft, test_encodec
from tests.adapters.common import METHODS, check_unplugs, loss_falls, stages_agree, tones

LEVELS, CODES, GROUPS, STAGES, WIDTH = [8, 5, 4, 3], 32, 2, 4, 8
EPS = torch.finfo(torch.float32).eps


def fsq(**options: Any) -> Any:
    return foreign.FiniteScalarQuantizer(LEVELS, **options)


def grouped_fsq(**options: Any) -> Any:
    return foreign.GroupFiniteScalarQuantizer(GROUPS, LEVELS, **options)


def trained(quantizer: Any) -> Any:
    for stages in (module for module in quantizer.modules() if hasattr(module, "codebooks")):
        for place, book in enumerate(stages.codebooks):
            book.initialized.fill_(1)
            book.codes.mul_(0.5**place)
            book.cluster_size.uniform_(1, 9)
            book.codes_avg.copy_(book.codes * book.cluster_size[:, None])
    return quantizer


def residual(seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    return trained(foreign.ResidualVectorQuantizer(STAGES, CODES, WIDTH, **options))


def grouped_residual(seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    return trained(foreign.GroupResidualVectorQuantizer(STAGES, GROUPS, WIDTH, codebook_size=CODES, **options))


ORIGINALS: dict[str, Callable[[], nn.Module]] = {
    "nemo_fsq": fsq,
    "nemo_fsq_grouped": grouped_fsq,
    "nemo_residual": residual,
    "nemo_residual_grouped": grouped_residual,
}
CODEBOOKS = {"nemo_fsq": 1, "nemo_fsq_grouped": GROUPS, "nemo_residual": STAGES, "nemo_residual_grouped": STAGES}
GRIDS = [name for name in ORIGINALS if "fsq" in name]
TABLES = [name for name in ORIGINALS if "fsq" not in name]
every = pytest.mark.parametrize("contract", ORIGINALS)


def width(contract: str) -> int:
    return len(LEVELS) if contract == "nemo_fsq" else WIDTH


def model(contract: str) -> Any:
    torch.manual_seed(1)
    return foreign.AudioCodecModel(ORIGINALS[contract](), width(contract))


def vectors(contract: str, n: int = 40, seed: int = 2) -> Tensor:
    return torch.randn(2, width(contract), n, generator=torch.Generator().manual_seed(seed))


def batch() -> tuple[Tensor, Tensor]:
    return tones()[:, 0], torch.tensor([160, 120])


LENGTHS = torch.tensor([40, 31])
COUNTS = torch.arange(40) < LENGTHS[:, None]
"""Which positions of `vectors` count."""


@every
@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(contract: str, name: str) -> None:
    codec, (audio, lengths) = plug_in(model(contract), name), batch()
    assert plugged(codec)["vector_quantizer"].contract == contract

    def losses() -> tuple[Tensor, Tensor]:
        made, loss = codec(audio, lengths)
        return F.mse_loss(made, audio), getattr(codec.vector_quantizer, "loss", loss)

    # A single code for each frame in four channels leaves most of the error.
    loss_falls(codec, losses, rate=1e-2 if contract == "nemo_fsq" else 3e-3)
    codec.eval()
    made, loss = codec(audio, lengths)
    tokens, frames = codec.encode(audio, lengths)
    assert tokens.shape == (2, CODEBOOKS[contract], 20)
    assert (tokens[1, :, 15:] == 0).all()
    assert (tokens >= 0).all()
    torch.testing.assert_close(codec.decode(tokens, frames), made)
    assert torch.is_tensor(loss) == (contract in TABLES)


@every
def test_padding_is_written_as_theirs_and_does_not_count(contract: str) -> None:
    """Vectors and indices are zero there, and nothing else depends on what stands there."""
    original = ORIGINALS[contract]()
    new, z = plug_in(copy.deepcopy(original), "ema_vq"), vectors(contract)
    garbage = torch.where(COUNTS[:, None], z, 1e3)
    for quantizer in (original.eval(), new.eval(), new.train()):
        quantized, indices, *_ = quantizer(inputs=z, input_len=LENGTHS)
        assert quantized.shape == z.shape
        assert indices.shape == (CODEBOOKS[contract], 2, 40)
        assert (quantized.movedim(1, -1)[~COUNTS] == 0).all()
        assert (indices.movedim(0, -1)[~COUNTS] == 0).all()
        decoded = quantizer.decode(indices=indices, input_len=LENGTHS)
        assert (decoded.movedim(1, -1)[~COUNTS] == 0).all()
    new.eval()
    losses = []
    for x in (z, garbage):
        quantized, indices, *loss = new(inputs=x, input_len=LENGTHS)
        torch.testing.assert_close(new.decode(indices=indices, input_len=LENGTHS), quantized)
        losses.append(loss[0] if loss else new.loss)
        assert torch.equal(new.encode(inputs=x, input_len=LENGTHS), indices)
    assert losses[0] == losses[1] != 0


@every
def test_without_lengths_all_positions_count(contract: str) -> None:
    new, z = plug_in(ORIGINALS[contract](), "vq").eval(), vectors(contract)
    whole = torch.tensor([40, 40])
    expected, found = new(inputs=z, input_len=whole), new(inputs=z)
    assert torch.equal(found[1], expected[1])
    assert torch.equal(new.encode(inputs=z), expected[1])
    assert torch.equal(new.decode(indices=expected[1]), new.decode(indices=expected[1], input_len=whole))


# Codes that are kept


@pytest.mark.parametrize("contract", GRIDS)
def test_kept_grids_give_what_the_model_gave(contract: str) -> None:
    """Indices and values, except where a channel is within rounding of the edge between two levels."""
    original, z, lengths = ORIGINALS[contract](), 2 * vectors(contract, 2000), torch.tensor([2000, 1900])
    new = plug_in(original, "fsq", keep_codebook=True)
    expected, indices = original(inputs=z, input_len=lengths)
    found, new_indices = new(inputs=z, input_len=lengths)
    grids = getattr(original, "fsqs", [original])
    bounded = torch.stack([grid.compress(own) for grid, own in zip(grids, z.chunk(len(grids), 1), strict=True)])
    # Seven roundings of a number of levels, at most 8, in float32; a half of a unit each, on either side.
    clear = ((bounded - bounded.floor() - 0.5).abs() > 14 * 4 * EPS).all(2)
    assert clear.float().mean() > 0.99
    assert torch.equal(new_indices[clear], indices[clear].long())
    assert torch.equal(new.encode(inputs=z, input_len=lengths), new_indices)
    channels = torch.cat([own[:, None].expand(-1, len(LEVELS), -1) for own in clear], 1)
    assert torch.equal(found[channels], expected[channels])
    decoded, original_decoded = (side.decode(indices=indices, input_len=lengths) for side in (new, original))
    assert torch.equal(decoded, original_decoded)
    usual = plug_in(unplug(new), "fsq").encode(inputs=z, input_len=lengths)  # of today's bound
    assert 0 < (usual != indices).float().mean() < 0.05


@pytest.mark.parametrize("contract", TABLES)
@pytest.mark.parametrize("name", METHODS)
def test_kept_codebooks_give_what_the_model_gave(contract: str, name: str) -> None:
    original, z = ORIGINALS[contract]().eval(), vectors(contract)
    codebook = take_codebook(original)
    groups = GROUPS if "grouped" in contract else 1
    assert codebook.shape == (STAGES, CODES, WIDTH // groups)
    if name == "fsq":
        with pytest.raises(ValueError, match="scales or bounds the input of its stages"):
            plug_in(original, name, keep_codebook=True)
        return
    new = plug_in(original, name, keep_codebook=True)
    assert torch.equal(take_codebook(new), codebook)
    reference = original.encode(inputs=z, input_len=LENGTHS)
    found = new.encode(inputs=z, input_len=LENGTHS)
    pieces = zip(*(part.chunk(groups) for part in (found, reference, codebook)), z.chunk(groups, 1), strict=True)
    for own, other, codes, x in pieces:
        rows = x.movedim(1, -1)[COUNTS]
        stages_agree(own[:, COUNTS], other[:, COUNTS], rows, codes)
    decoded, expected = (side.decode(indices=reference, input_len=LENGTHS) for side in (new, original))
    assert torch.equal(decoded, expected)


@pytest.mark.parametrize("contract", TABLES)
def test_ema_goes_on_as_theirs_would_have(contract: str) -> None:
    """Codes, averages and loss of a step in training without padding, at the model's own decay."""
    kind, whole = {"nemo_residual": residual, "nemo_residual_grouped": grouped_residual}[contract], 100
    reference, z = kind(decay=0.75).train(), vectors(contract, whole)
    new = plug_in(kind(decay=0.75).train(), "ema_vq", keep_codebook=True)
    lengths = torch.tensor([whole, whole])
    expected, found = (side(inputs=z, input_len=lengths) for side in (reference, new))
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[2], expected[2])
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=float(STAGES * EPS * 2 * z.abs().max()))
    books = [book for module in reference.modules() for book in getattr(module, "codebooks", [])]
    parts = [part for module in new.modules() for part in [module] if hasattr(module, "cluster_size")]
    for part, book in zip(parts, books, strict=True):
        # Counts and sums of n ≤ 200 vectors, in another order.
        scale = EPS * 200 * z.abs().max()
        torch.testing.assert_close(part.cluster_size, book.cluster_size, rtol=4 * EPS, atol=0)
        assert (part.embedding_sum - book.codes_avg).abs().max() <= scale
        torch.testing.assert_close(part.embedding, book.codes, rtol=8 * EPS, atol=float(scale))


@pytest.mark.parametrize("contract", GRIDS)
def test_a_grid_is_kept_by_the_same_grid_alone(contract: str) -> None:
    for name, options in (("vq", {}), ("fsq", {"levels": (8, 5, 5, 3)}), ("fsq", {"bound": "tanh"})):
        with pytest.raises(ValueError, match=r"the codes to keep have \(\(8, 5, 4, 3\), 'narrow'\)"):
            plug_in(ORIGINALS[contract](), name, keep_codebook=True, **options)
    make: Any = fsq if contract == "nemo_fsq" else grouped_fsq
    with pytest.raises(ValueError, match=r"has eps=0.01, expected 0.001 with keep_codebook=True"):
        plug_in(make(eps=0.01), "fsq", keep_codebook=True)
    plug_in(make(eps=0.01), "fsq")


def test_grids_are_listed_as_theirs() -> None:
    for build in (fsq, grouped_fsq):
        original = build()
        new = plug_in(original, "fsq")
        for name in ("codebook_size", "codebook_dim", "output_types"):
            assert getattr(new, name) == getattr(original, name), name
        assert torch.equal(take_codebook(new), take_codebook(original))
    for name in ("num_groups", "codebook_size_per_group", "codebook_dim_per_group"):
        assert getattr(new, name) == getattr(original, name), name
    original = fsq()
    new = plug_in(original, "fsq")
    assert new.dim == original.dim
    assert torch.equal(new.codes, original.codes)
    assert torch.equal(new.codebook, original.codes)
    assert plug_in(fsq(), "vq", codebook_size=64).codes.shape == (64, len(LEVELS))


def test_sizes_are_read_as_theirs() -> None:
    original = grouped_residual()
    new = plug_in(original, "vq")
    names = ("num_codebooks", "num_groups", "codebook_dim", "num_codebooks_per_group", "codebook_dim_per_group")
    for name in (*names, "output_types"):
        assert getattr(new, name) == getattr(original, name), name
    single = plug_in(residual(), "vq")
    assert (single.codebook_dim, single.num_codebooks, single.codebook_size) == (WIDTH, STAGES, CODES)
    assert len(single.output_types) == 3


@every
def test_a_saved_state_loads_into_the_same_codec(contract: str) -> None:
    first, second = (plug_in(model(contract), "simvq").eval() for _ in range(2))
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(0.5)
    arguments = batch()
    assert not torch.equal(first(*arguments)[0], second(*arguments)[0])
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(*arguments)[0], second(*arguments)[0])
    assert torch.equal(first.encode(*arguments)[0], second.encode(*arguments)[0])


@every
def test_unplug_puts_back_what_stood_there(contract: str) -> None:
    codec, arguments = model(contract).eval(), batch()
    check_unplugs(codec, "vector_quantizer", lambda: codec(*arguments)[0])


@every
def test_a_model_is_one_graph(contract: str) -> None:
    codec, arguments = plug_in(model(contract), "ema_vq").eval(), batch()
    compiled = torch.compile(copy.deepcopy(codec), backend="eager", fullgraph=True)
    assert torch.equal(compiled(*arguments)[0], codec(*arguments)[0])


def test_a_model_takes_other_quantizers_with_more_codebooks() -> None:
    """One codebook becomes three stages; models see as many rows of indices."""
    new = plug_in(fsq(), "residual", quantizer="ema_vq", num_quantizers=3, codebook_size=16)
    quantized, indices = new(inputs=vectors("nemo_fsq"), input_len=LENGTHS)
    assert indices.shape == (3, 2, 40)
    assert new.num_codebooks == 3
    assert new.loss > 0
    assert quantized.shape == (2, len(LEVELS), 40)


def test_indices_of_other_codebooks_are_named() -> None:
    new = plug_in(fsq(), "fsq")
    with pytest.raises(ValueError, match=r"indices have shape \(2, 1, 5\), expected 1 on the first axis"):
        new.decode(indices=torch.zeros(2, 1, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="columns on the last axis"):
        plug_in(residual(), "vq").decode(indices=torch.zeros(9, 1, 5, dtype=torch.int64))


def test_an_original_without_codes_yet_stays_so() -> None:
    """Its first forward replaces its codes by k-means, in either mode, also when it is checked."""
    original = foreign.ResidualVectorQuantizer(STAGES, CODES, WIDTH).eval()
    before = take_codebook(original)
    assert torch.equal(take_codebook(plug_in(original, "vq", keep_codebook=True)), before)
    assert torch.equal(take_codebook(original), before)
    assert not any(book.initialized for book in original.codebooks)


def test_a_grid_on_meta_says_so() -> None:
    with pytest.raises(ValueError, match="FiniteScalarQuantizer is on meta, where its levels have no values"):
        plug_in(fsq().to("meta"), "fsq")


def test_warm_start_sees_what_is_quantized() -> None:
    codec = plug_in(model("nemo_residual_grouped"), "vq")
    before = take_codebook(codec)
    audio, lengths = batch()
    warm_start(codec, [(audio, lengths), (audio.flip(-1), lengths)])
    assert (take_codebook(codec) != before).any(-1).all()


def test_a_model_that_is_cast_gets_its_dtype() -> None:
    for contract in ORIGINALS:
        new, z = plug_in(ORIGINALS[contract](), "vq").to(torch.bfloat16), vectors(contract).to(torch.bfloat16)
        quantized, indices, *_ = new(inputs=z, input_len=LENGTHS)
        assert quantized.dtype == new.decode(indices=indices, input_len=LENGTHS).dtype == torch.bfloat16


def test_each_package_keeps_its_class() -> None:
    """Three packages have a class of this name."""
    found = [type(plug_in(build(), "vq")).__name__ for build in (residual, test_audiocraft.quantizer)]
    assert found == ["NemoResidualAdapter", "AudiocraftAdapter"]
    assert type(plug_in(test_encodec.quantizer(), "vq")).__name__ == "EncodecAdapter"
    assert quantizers.plug_in(residual(), "vq").contract == "nemo_residual"
