"""UniTok's VectorQuantizerM, against a stand-in."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantizers import create, plug_in, take_codebook
from quantizers.adapters.recognition import contract_named, contract_of
from tests.adapters.common import METHODS, agrees, check_unplugs, loss_falls
from tests.adapters.images.stand_in_unitok import VectorQuantizerM
from tests.adapters.round_trip import check_loads

GROUPS, CODES, WIDTH, LENGTH = 4, 32, 16, 12
EPS = torch.finfo(torch.float32).eps
KEEPING = ("vq", "ema_vq", "simvq", "rotation_vq")


def original(**options: Any) -> VectorQuantizerM:
    torch.manual_seed(0)
    return VectorQuantizerM(GROUPS * CODES, WIDTH, GROUPS, **options)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"unitok": original}


class Model(nn.Module):
    """A tokenizer, which calls the quantizer as UniTok does."""

    def __init__(self) -> None:
        super().__init__()
        self.quant_proj = nn.Linear(10, WIDTH)
        self.quantizer = original()
        self.post_quant_proj = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens, loss, entropy, usage = self.quantizer(self.quant_proj(x))
        return self.post_quant_proj(tokens), loss + entropy, usage

    def idx_to_img(self, indices: Tensor) -> Tensor:
        return self.post_quant_proj(self.quantizer.idx_to_f(indices))


def build() -> Model:
    torch.manual_seed(0)
    return Model()


def inputs(channels: int = 10) -> Tensor:
    return torch.randn(3, LENGTH, channels, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    model, x = build(), inputs()
    plug_in(model, name)
    assert model.quantizer.num_codebooks == GROUPS

    def losses() -> tuple[Tensor, Tensor]:
        decoded, loss, usage = model(x)
        assert 0 < usage <= 100
        return functional.mse_loss(decoded, x), loss

    loss_falls(model, losses)
    model.eval()
    indices = model.quantizer.f_to_idx(model.quant_proj(x))
    assert indices.shape == (3, GROUPS, LENGTH)
    torch.testing.assert_close(model.idx_to_img(indices), model(x)[0])
    as_map = indices.unflatten(-1, (3, LENGTH // 3))
    assert torch.equal(model.idx_to_img(as_map), model.idx_to_img(indices))


@pytest.mark.parametrize("name", KEEPING)
def test_kept_codebooks_give_what_the_model_gave(name: str) -> None:
    module = original().eval()
    codebooks = take_codebook(nn.Sequential(module))
    assert codebooks.shape == (GROUPS, CODES, WIDTH // GROUPS)
    adapter: Any = plug_in(nn.Sequential(module), name, keep_codebook=True)[0].eval()
    z = inputs(WIDTH)
    (old, loss, entropy, usage), (new, new_loss, *others) = module(z), adapter(z)
    assert others[0] == entropy == 0
    torch.testing.assert_close(others[1], usage)
    same = torch.ones(3, LENGTH, dtype=torch.bool)
    columns = zip(adapter.f_to_idx(z).unbind(1), module.f_to_idx(z).unbind(1), z.chunk(GROUPS, -1), strict=True)
    for (own, other, rows), codebook in zip(columns, codebooks, strict=True):
        unit = functional.normalize(rows.reshape(-1, rows.shape[-1]), dim=-1)
        assert agrees(own.flatten(), other.flatten(), unit, codebook)
        same &= own == other
    # Unit vectors: two norms of WIDTH / GROUPS terms, and a straight-through sum, all below 2.
    assert ((new - old).abs() <= 4 * (WIDTH + 3) * EPS)[same].all()
    if name != "ema_vq":
        torch.testing.assert_close(new_loss, loss)
    torch.testing.assert_close(adapter.idx_to_f(module.f_to_idx(z)), module.idx_to_f(module.f_to_idx(z)))


def test_gradients_are_those_of_the_original() -> None:
    module, found = original(beta=0.6), []
    adapter = plug_in(nn.Sequential(module), "vq", keep_codebook=True)[0]
    for own in (module, adapter):
        z = inputs(WIDTH).requires_grad_()
        quantized, loss, *_ = own(z)
        (loss + (quantized * torch.linspace(-1, 1, WIDTH)).mean()).backward()
        found.append(z.grad)
    torch.testing.assert_close(*found)


def test_the_entropy_loss_is_a_zero_of_its_kind() -> None:
    with_entropy = plug_in(nn.Sequential(original(use_entropy_loss=True)), "vq")[0](inputs(WIDTH))[2]
    assert isinstance(with_entropy, Tensor)
    assert with_entropy == 0
    assert plug_in(nn.Sequential(original()), "vq")[0](inputs(WIDTH))[2] == 0.0


def test_one_codebook_has_an_axis_of_one() -> None:
    adapter = plug_in(nn.Sequential(original()), create("vq", dim=WIDTH, codebook_size=CODES))[0].eval()
    z = inputs(WIDTH)
    indices = adapter.f_to_idx(z)
    assert indices.shape == (3, 1, LENGTH)
    assert torch.equal(adapter.idx_to_f(indices), adapter(z)[0])


def test_what_cannot_be_kept_is_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"GumbelQuantizer has distance='euclidean', but .* distance='cosine'"):
        plug_in(nn.Sequential(original()), "gumbel", keep_codebook=True)
    single = create("vq", dim=WIDTH, codebook_size=CODES)
    with pytest.raises(ValueError, match="expected a GroupedQuantizer of 4 groups"):
        plug_in(nn.Sequential(original()), single, keep_codebook=True)


def test_a_module_without_codebooks_takes_a_quantizer_that_is_built() -> None:
    quantizer = create("grouped", dim=WIDTH, num_groups=GROUPS, codebook_size=CODES)
    adapter = plug_in(nn.Sequential(nn.Identity()), quantizer, at="0", contract="unitok")[0]
    assert adapter(inputs(WIDTH))[0].shape == (3, LENGTH, WIDTH)


def test_it_is_recognised() -> None:
    assert contract_of(original()) is contract_named("unitok")


def test_loads_what_it_saves() -> None:
    check_loads(lambda: plug_in(build(), "simvq"), lambda model: model(inputs())[0])


def test_unplug_puts_back_what_stood_there() -> None:
    model = build()
    check_unplugs(model, "quantizer", lambda: model(inputs())[0])
