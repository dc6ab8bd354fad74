"""TiTok's quantizer, against a stand-in."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantizers import plug_in
from quantizers.adapters.recognition import contract_named, contract_of
from tests.adapters.common import METHODS, check_kept, check_unplugs, loss_falls
from tests.adapters.images.stand_in_titok import TiTok, VectorQuantizer
from tests.adapters.round_trip import check_loads

CODES, WIDTH, TOKENS = 64, 8, 16
KEEPING = ("vq", "ema_vq", "simvq", "rotation_vq")
norms = pytest.mark.parametrize("norm", [False, True])


def original() -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(CODES, WIDTH, use_l2_norm=True)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"titok": original}


def build(**options: Any) -> TiTok:
    torch.manual_seed(0)
    return TiTok(WIDTH, CODES, **options)


def sequences() -> Tensor:
    return torch.rand(4, TOKENS, 12, generator=torch.Generator().manual_seed(1))


def run(model: nn.Module) -> Tensor:
    decoded: Tensor = model.decode(model.encode(sequences())[0])
    return decoded


@norms
@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str, norm: bool) -> None:
    model, x = build(use_l2_norm=norm), sequences()
    plug_in(model, name)
    assert model.quantize.use_l2_norm == (norm and name not in ("fsq", "gumbel"))

    def losses() -> tuple[Tensor, Tensor]:
        quantized, found = model.encode(x)
        assert list(found) == ["quantizer_loss", "commitment_loss", "codebook_loss", "min_encoding_indices"]
        assert torch.equal(found["commitment_loss"] + found["codebook_loss"], found["quantizer_loss"])
        return functional.mse_loss(model.decode(quantized), x), found["quantizer_loss"]

    loss_falls(model, losses)
    model.eval()
    quantized, found = model.encode(x)
    tokens = found["min_encoding_indices"]
    assert tokens.shape == (4, 1, TOKENS)
    torch.testing.assert_close(model.decode_tokens(tokens), model.decode(quantized))
    assert model.quantize.embedding.weight.shape == (model.quantize.codebook_size, model.quantize.token_size)


@pytest.mark.parametrize(
    ("name", "norm"), [*((name, norm) for name in KEEPING for norm in (False, True)), ("gumbel", False)]
)
def test_kept_codebook_gives_what_the_model_gave(name: str, norm: bool) -> None:
    model = build(use_l2_norm=norm).eval()
    z = torch.randn(4, WIDTH, 1, TOKENS, generator=torch.Generator().manual_seed(1), requires_grad=True)

    def call() -> tuple[Tensor, Tensor, Tensor]:
        quantized, found = model.quantize(z)
        return quantized, found["quantizer_loss"], found["min_encoding_indices"].reshape(-1)

    normalize = (lambda vectors: functional.normalize(vectors, dim=-1)) if norm else (lambda vectors: vectors)
    # A norm rounds as often as there are channels, in vectors and in codes.
    check_kept(model, name, z, call, normalize, roundings=2 * (WIDTH + 3) if norm else 1)


def test_codes_that_are_compared_in_another_way_are_not_kept() -> None:
    with pytest.raises(ValueError, match=r"GumbelQuantizer has distance='euclidean', but .* distance='cosine'"):
        plug_in(build(use_l2_norm=True), "gumbel", keep_codebook=True)
    with pytest.raises(ValueError, match=r"VectorQuantizer has distance='cosine', but .* distance='euclidean'"):
        plug_in(build(), "vq", distance="cosine", keep_codebook=True)


def test_the_second_stage_sets_the_losses_to_zero_in_place() -> None:
    model = plug_in(build(finetune_decoder=True), "vq")
    found = model.encode(sequences())[1]
    assert all(found[name] == 0 for name in ("quantizer_loss", "commitment_loss", "codebook_loss"))


def test_several_codebooks_have_an_axis_of_their_own() -> None:
    model = plug_in(build(), "residual", quantizer="vq", num_quantizers=3).eval()
    quantized, found = model.encode(sequences())
    tokens = found["min_encoding_indices"]
    assert tokens.shape == (4, 1, TOKENS, 3)
    codes = model.quantize.get_codebook_entry(tokens.reshape(-1, 3)).reshape(4, 1, TOKENS, WIDTH)
    torch.testing.assert_close(codes.movedim(-1, 1), quantized)


def test_probabilities_in_the_place_of_indices_are_refused() -> None:
    model = plug_in(build(), "vq")
    with pytest.raises(ValueError, match=r"of shape \(5, 64\), probabilities .*; expected integers"):
        model.quantize.get_codebook_entry(torch.full((5, CODES), 1 / CODES))


def test_it_is_recognised() -> None:
    for clustering in (False, True):
        assert contract_of(VectorQuantizer(CODES, WIDTH, clustering_vq=clustering)) is contract_named("titok")


def test_loads_what_it_saves() -> None:
    check_loads(lambda: plug_in(build(use_l2_norm=True), "simvq"), run)


def test_unplug_puts_back_what_stood_there() -> None:
    model = build()
    check_unplugs(model, "quantize", lambda: run(model))
