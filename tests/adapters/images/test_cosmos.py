"""Cosmos' FSQuantizer, ResidualFSQuantizer and VectorQuantizer, against stand-ins."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantizers import FSQ, plug_in, take_codebook
from quantizers.adapters.recognition import contract_named, contract_of
from tests.adapters.common import METHODS, check_kept, check_unplugs, loss_falls
from tests.adapters.images.stand_in_cosmos import FSQuantizer, ResidualFSQuantizer, VectorQuantizer
from tests.adapters.round_trip import check_loads

LEVELS, CODES, STAGES = [5, 4, 3], 64, 3
WIDTH, SIDE = len(LEVELS), 8
EPS = torch.finfo(torch.float32).eps


def original(contract: str) -> Any:
    torch.manual_seed(0)
    if contract == "cosmos_fsq":
        return FSQuantizer(LEVELS, dtype=torch.float32)
    if contract == "cosmos_residual_fsq":
        return ResidualFSQuantizer(LEVELS, STAGES)
    return VectorQuantizer(CODES, WIDTH)


NAMES = ("cosmos", "cosmos_fsq", "cosmos_residual_fsq")
ORIGINALS: dict[str, Callable[[], nn.Module]] = {name: partial(original, name) for name in NAMES}
grids = pytest.mark.parametrize("contract", ["cosmos_fsq", "cosmos_residual_fsq"])


class Model(nn.Module):
    """A tokenizer, which calls the quantizer and sets its dtype as Cosmos' tokenizers of images do."""

    def __init__(self, contract: str) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, WIDTH, 2, stride=2)
        self.quantizer = original(contract)
        self.decoder = nn.ConvTranspose2d(WIDTH, 3, 2, stride=2)

    def to(self, *args: Any, **kwargs: Any) -> "Model":
        self.quantizer.dtype = kwargs.get("dtype", torch.bfloat16)
        return super().to(*args, **kwargs)

    def encode(self, x: Tensor) -> Any:
        return self.quantizer(self.encoder(x))

    def decode_code(self, code_b: Tensor) -> Tensor:
        return self.decoder(self.quantizer.indices_to_codes(code_b))


def build(contract: str) -> Model:
    torch.manual_seed(0)
    return Model(contract)


def images() -> Tensor:
    return torch.rand(2, 3, 2 * SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def inputs(channels: int = WIDTH) -> list[Tensor]:
    """A sequence, an image and a video."""
    torch.manual_seed(1)
    shapes = (5, channels), (channels, 4, 6), (channels, 3, 4, 6)
    return [2 * torch.randn(2, *shape) for shape in shapes]


def kept(module: nn.Module, name: str = "vq", **options: Any) -> Any:
    return plug_in(nn.Sequential(module), name, keep_codebook=True, **options)[0]


def assert_same(new: Any, old: Any) -> None:
    """Indices are equal; vectors are up to the roundings of a straight-through sum of values below 4."""
    assert torch.equal(new[0], old[0].long())
    assert new[1].dtype == old[1].dtype
    torch.testing.assert_close(new[1], old[1], rtol=0, atol=8 * EPS)
    assert torch.equal(new[2], old[2])


@grids
@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(contract: str, name: str) -> None:
    model, x = build(contract), images()
    plug_in(model, name)

    def losses() -> tuple[Tensor, Tensor]:
        _, codes, loss = model.encode(x)
        assert loss.shape == (2, 1, 1, 1)
        return functional.mse_loss(model.decoder(codes), x), loss.mean()

    loss_falls(model, losses, rate=1e-2)
    model.eval()
    indices, codes, _ = model.encode(x)
    stages = (STAGES,) if contract == "cosmos_residual_fsq" else ()
    assert indices.shape == (2, *stages, SIDE, SIDE // 2)
    torch.testing.assert_close(model.decode_code(indices), model.decoder(codes))


@pytest.mark.parametrize("place", range(3))
@grids
def test_kept_grids_give_what_the_model_gave(contract: str, place: int) -> None:
    module, z = original(contract), inputs()[place]
    adapter = kept(module, "fsq") if contract == "cosmos_fsq" else kept(module, "residual", quantizer="fsq")
    codebook = take_codebook(nn.Sequential(module), at="0")
    assert torch.equal(take_codebook(nn.Sequential(adapter)), codebook)
    expected = module(z)
    assert_same(adapter(z), expected)
    decoded = module.indices_to_codes(expected[0])
    torch.testing.assert_close(adapter.indices_to_codes(expected[0].long()), decoded.float(), rtol=0, atol=8 * EPS)


@pytest.mark.parametrize("place", range(3))
def test_several_codebooks_and_projections(place: int) -> None:
    torch.manual_seed(0)
    for options in (
        {"num_codebooks": 2},
        {"num_codebooks": 2, "dim": 7},
        {"dim": 7},
        {"keep_num_codebooks_dim": True},
    ):
        module: Any = FSQuantizer(LEVELS, dtype=torch.float32, **options)
        z = inputs(module.dim)[place]
        grouped = {"quantizer": "fsq"} if module.num_codebooks > 1 else {}
        adapter = kept(module, "grouped" if grouped else "fsq", **grouped)
        expected, found = module(z), adapter(z)
        assert torch.equal(found[0], expected[0].long())
        torch.testing.assert_close(found[1], expected[1])
        decoded = module.indices_to_codes(expected[0])
        torch.testing.assert_close(adapter.indices_to_codes(expected[0].long()), decoded)


def test_gradients_of_a_grid_are_those_of_the_original() -> None:
    module = original("cosmos_fsq")
    found = []
    for own in (module, kept(module, "fsq")):
        z = inputs()[1].requires_grad_()
        (own(z)[1] * torch.linspace(-1, 1, 6)).sum().backward()
        found.append(z.grad)
    torch.testing.assert_close(*found)


@grids
def test_models_set_the_dtype(contract: str) -> None:
    model, x = plug_in(build(contract), "fsq"), images()
    for dtype in (torch.bfloat16, torch.float32):
        model.to(dtype=dtype)
        assert model.quantizer.dtype == dtype
        indices, codes, _ = model.encode(x.to(dtype))
        assert codes.dtype == dtype
        assert model.quantizer.indices_to_codes(indices).dtype == dtype
    model.quantizer.dtype = torch.bfloat16  # as it is by default, in a model of float32
    assert model.encode(x)[1].dtype == torch.bfloat16
    model.quantizer.dtype = torch.float32
    model.quantizer.to(torch.bfloat16)  # which the original does not follow
    assert model.quantizer.dtype == torch.float32


def test_a_grid_of_other_levels_is_not_kept() -> None:
    with pytest.raises(
        ValueError, match=r"quantizer is FSQ with \(\(5, 5\), 'tanh'\), but the codes to keep have"
    ):
        kept(original("cosmos_fsq"), "fsq", levels=(5, 5))
    with pytest.raises(ValueError, match="quantizer scales or bounds the input of its stages"):
        kept(original("cosmos_residual_fsq"), "fsq")
    module = original("cosmos_residual_fsq")
    module.layers = nn.ModuleList([FSQuantizer(LEVELS, num_codebooks=2)])
    with pytest.raises(ValueError, match="has stages with 2 codebooks; expected one in each"):
        plug_in(nn.Sequential(module), "vq")


def test_a_new_grid_has_the_original_levels() -> None:
    assert plug_in(nn.Sequential(original("cosmos_fsq")), "fsq")[0].quantizer.level_counts == tuple(LEVELS)
    stages = plug_in(nn.Sequential(original("cosmos_residual_fsq")), "fsq")[0].quantizer.stages
    assert [stage.level_counts for stage in stages] == [tuple(LEVELS)] * STAGES
    assert all(isinstance(stage, FSQ) for stage in stages)


# VectorQuantizer


@pytest.mark.parametrize("name", METHODS)
def test_a_codebook_trains_encodes_and_decodes(name: str) -> None:
    model, x = build("cosmos"), images()
    plug_in(model, name)

    def losses() -> tuple[Tensor, Tensor]:
        codes, loss, _ = model.encode(x)
        assert loss.shape == (2, 1, 1, 1)
        return functional.mse_loss(model.decoder(codes), x), loss.mean()

    loss_falls(model, losses, rate=1e-2)
    model.eval()
    codes, _, (indices, *_) = model.encode(x)
    looked_up = model.quantizer.get_codebook_entry(indices, (2, SIDE, SIDE // 2, WIDTH))
    torch.testing.assert_close(looked_up, codes)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["vq", "ema_vq", "simvq", "rotation_vq"])
def test_a_kept_codebook_gives_what_the_model_gave(name: str, legacy: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(VectorQuantizer(CODES, WIDTH, legacy=legacy)).eval()
    z = inputs()[1].requires_grad_()

    def run() -> tuple[Tensor, Tensor, Tensor]:
        codes, loss, info = model[0](z)
        return codes, loss.mean(), info[0]

    check_kept(model, name, z, run)


def test_the_third_result_of_a_codebook() -> None:
    module, z = original("cosmos"), inputs()[1]
    old, (_, loss, new) = module(z)[2], kept(module)(z)
    assert torch.equal(new[0], old[0])
    assert new[1] is None
    assert torch.equal(new[2], loss[0, 0, 0, 0].detach())
    assert new[3] == 0
    torch.testing.assert_close(new[4], old[4])
    assert not any(value.requires_grad for value in (new[2], new[3], new[4]))
    several = plug_in(nn.Sequential(module), "residual", quantizer="vq", num_quantizers=2)[0]
    assert several(z)[2][0].shape == (2 * 4 * 6, 2)


def test_codes_that_are_normalised_after_the_search_are_not_kept() -> None:
    module = VectorQuantizer(CODES, WIDTH, use_norm=True)
    adapter = plug_in(nn.Sequential(module), "vq")[0]
    norms = adapter(inputs()[1])[0].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    with pytest.raises(ValueError, match="has use_norm=True: it searches its codes as they are"):
        kept(module)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_recognised(name: str) -> None:
    assert contract_of(original(name)) is contract_named(name)


@pytest.mark.parametrize("name", NAMES)
def test_loads_what_it_saves(name: str) -> None:
    def run(model: Any) -> Tensor:
        return model.encode(images())[0 if name == "cosmos" else 1]

    check_loads(lambda: plug_in(build(name), "simvq"), run)


@pytest.mark.parametrize("name", NAMES)
def test_unplug_puts_back_what_stood_there(name: str) -> None:
    model, x = build(name), images()
    check_unplugs(model, "quantizer", lambda: model.encode(x)[0 if name == "cosmos" else 1])
