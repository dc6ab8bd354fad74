"""Four classes called FactorizedVectorQuantize, against stand-ins."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import weight_norm

from quantizers import plug_in, take_codebook, unplug
from quantizers.adapters.recognition import contract_named, contract_of
from tests.adapters.audio.dac_bounds import assert_agrees
from tests.adapters.audio.stand_in_factorized import KINDS
from tests.adapters.common import METHODS, loss_falls
from tests.adapters.round_trip import check_loads

WIDTH, CODES, CODE_DIM, FRAMES = 12, 32, 4, 16
KEEPING = ("vq", "ema_vq", "simvq", "rotation_vq")
PLACES = ["quantizers.0", "quantizers.1"]
kinds = pytest.mark.parametrize("kind", KINDS)


def original(kind: str, width: int = WIDTH, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return KINDS[kind](width, CODES, CODE_DIM, commitment=0.3, **options)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {kind: partial(original, kind) for kind in KINDS}


class Model(nn.Module):
    """A codec whose quantizers are stages: the repositories have a ResidualVQ of them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, WIDTH, 4, stride=4)
        self.quantizers = nn.ModuleList([original(kind) for _ in PLACES])
        self.decoder = nn.ConvTranspose1d(WIDTH, 1, 4, stride=4)

    def quantize(self, z: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        residual, indices, losses = z, [], []
        for quantizer in self.quantizers:
            value, own, loss = parts(quantizer(residual))
            residual = residual - value
            indices.append(own)
            losses.append(loss)
        return z - residual, indices, torch.stack(losses).sum()

    def decode(self, indices: list[Tensor]) -> Tensor:
        pairs = zip(self.quantizers, indices, strict=True)
        return self.decoder(torch.stack([decoded(quantizer, own) for quantizer, own in pairs]).sum(0))


def parts(output: Any) -> tuple[Tensor, Tensor, Tensor]:
    """z_q, indices and loss [] of any of the results."""
    if isinstance(output, dict):
        return output["z_q"], output["indices"], output["vq_loss"]
    if len(output) == 3:
        return output[0], output[1], output[2].mean()
    return output[0], output[3], output[1].mean() + output[2].mean()


def decoded(quantizer: Any, indices: Tensor) -> Tensor:
    """The vectors [B, D, T] of indices, by the method that models call."""
    if hasattr(quantizer, "detokenize"):
        return quantizer.detokenize(indices)
    vectors = quantizer.vq2emb(indices)
    return vectors if vectors.shape[1] == WIDTH else vectors.mT


def build(kind: str) -> Model:
    torch.manual_seed(0)
    return Model(kind)


def audio() -> Tensor:
    """[4, 1, samples]: a tone for each sample, with little noise."""
    time = torch.arange(4 * FRAMES) / 4
    tones = torch.sin(time * torch.tensor([1.0, 1.5, 2.3, 3.1])[:, None])
    return tones[:, None] + 0.01 * torch.randn(4, 1, len(time), generator=torch.Generator().manual_seed(1))


def latents(width: int = WIDTH) -> Tensor:
    return torch.randn(3, width, FRAMES, generator=torch.Generator().manual_seed(1))


def kept(module: nn.Module, name: str = "vq") -> Any:
    return plug_in(nn.Sequential(module), name, keep_codebook=True)[0]


@kinds
@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(kind: str, name: str) -> None:
    model, x = build(kind), audio()
    plug_in(model, name, at=PLACES)

    def losses() -> tuple[Tensor, Tensor]:
        quantized, _, loss = model.quantize(model.encoder(x))
        return nn.functional.mse_loss(model.decoder(quantized), x), loss

    loss_falls(model, losses, rate=1e-2)
    model.eval()
    quantized, indices, _ = model.quantize(model.encoder(x))
    assert [own.shape for own in indices] == [(4, FRAMES)] * 2
    torch.testing.assert_close(model.decode(indices), model.decoder(quantized))


@kinds
@pytest.mark.parametrize("name", KEEPING)
@torch.no_grad()
def test_kept_codebook_gives_what_the_model_gave(kind: str, name: str) -> None:
    module, z = original(kind).eval(), latents()
    adapter = kept(module, name).eval()
    codebook = take_codebook(module)
    assert codebook.shape == (CODES, CODE_DIM)
    assert torch.equal(adapter.get_emb(), codebook)
    maps = [getattr(module, place) for place in module.projections]
    in_proj, out_proj = (
        SimpleNamespace(weight=own.weight.reshape(*own.weight.shape[:2], 1), bias=own.bias) for own in maps
    )
    stage = SimpleNamespace(in_proj=in_proj, codebook=module.codebook, out_proj=_OnChannels(maps[1], out_proj))
    results = []
    for own in (adapter, module):
        z_q, indices, _ = parts(own(z))
        z_e = adapter(z)[4] if kind == "factorized_amphion" and own is adapter else module._apply_map(0, z)
        results.append((z_q, indices[:, None], z_e))
        torch.testing.assert_close(decoded(own, indices), z_q)
    assert_agrees(*results, z, SimpleNamespace(quantizers=[stage]))


class _OnChannels(SimpleNamespace):
    """A map with a weight [out, in, 1], of [B, channels, T]."""

    def __init__(self, layer: nn.Module, like: SimpleNamespace) -> None:
        super().__init__(layer=layer, weight=like.weight, bias=like.bias)

    def __call__(self, x: Tensor) -> Tensor:
        return self.layer(x.mT).mT if isinstance(self.layer, nn.Linear) else self.layer(x)


@kinds
def test_losses_and_gradients_are_those_of_the_original(kind: str) -> None:
    """In training, where the original has losses: their sum, and what reaches z and the codes."""
    module, found = original(kind), []
    adapter = kept(module)
    for own, table in ((module, module.codebook.weight), (adapter, adapter.quantizer.codebook)):
        z = latents().requires_grad_()
        quantized, indices, loss = parts(own(z))
        (loss + (quantized * torch.linspace(-1, 1, FRAMES)).mean()).backward()
        found.append((indices, loss, z.grad, table.grad))
    for old, new in zip(*found, strict=True):
        torch.testing.assert_close(new, old)


@kinds
def test_codes_as_wide_as_vectors_are_not_projected(kind: str) -> None:
    module, z = original(kind, CODE_DIM).eval(), latents(CODE_DIM)
    adapter = kept(module).eval()
    for old, new in zip(parts(module(z))[:2], parts(adapter(z))[:2], strict=True):
        torch.testing.assert_close(new, old)


def test_the_search_is_by_distance_where_the_original_says_so() -> None:
    module, z = original("factorized_amphion", use_l2_normlize=False).eval(), latents()
    adapter = kept(module).eval()
    assert adapter.quantizer.distance == "euclidean"
    assert torch.equal(adapter(z)[3], module(z)[3])
    with pytest.raises(ValueError, match=r"has distance='angle', but .* distance='euclidean'"):
        plug_in(nn.Sequential(module), "vq", distance="angle", keep_codebook=True)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weights_of_the_older_weight_norm_are_those_of_its_forward() -> None:
    for kind in KINDS:
        module, z = original(kind, norm=weight_norm).eval(), latents()
        with torch.no_grad():
            for place in module.projections:
                getattr(module, place).weight_g.mul_(2)  # no forward has followed
        torch.testing.assert_close(parts(kept(module).eval()(z))[0], parts(module(z))[0])


def test_what_cannot_be_kept_is_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"GumbelQuantizer has distance='euclidean', but .* distance='angle'"):
        kept(original("factorized"), "gumbel")
    with pytest.raises(ValueError, match=r"codebook has shape \(32, 4\), expected \(32, 12\)"):
        plug_in(nn.Sequential(original("factorized")), "vq", code_dim=WIDTH, keep_codebook=True)


def test_spark_counts_the_codes_of_the_batch() -> None:
    module, z = original("factorized_spark"), latents()
    adapter = kept(module)
    old, new = module(z), adapter(z)
    assert list(new) == list(old)
    assert new["dists"] is None
    for name in ("perplexity", "active_num", "vq_loss"):
        torch.testing.assert_close(new[name], old[name])
    assert torch.equal(adapter.tokenize(z), module.tokenize(z))
    several = plug_in(nn.Sequential(module), "residual", quantizer="vq", num_quantizers=2)[0].eval()
    output = several(z)
    assert output["indices"].shape == (3, FRAMES, 2)
    assert output["active_num"] == sum(len(column.unique()) for column in output["indices"].unbind(-1))
    torch.testing.assert_close(several.detokenize(output["indices"]), output["z_q"])


def test_classes_of_one_name_are_told_apart() -> None:
    for kind in KINDS:
        module = original(kind)
        assert contract_of(module) is contract_named(kind)
        for other in KINDS:
            if other != kind:
                with pytest.raises(ValueError, match=f"contract '{other}' cannot read"):
                    plug_in(nn.Sequential(module), "vq", contract=other)


@kinds
def test_loads_what_it_saves(kind: str) -> None:
    def run(model: Any) -> Tensor:
        return model.decode(model.quantize(model.encoder(audio()))[1])

    check_loads(lambda: plug_in(build(kind), "simvq", at=PLACES), run)


@kinds
def test_unplug_puts_back_what_stood_there(kind: str) -> None:
    model = build(kind).eval()
    originals, before = [*model.quantizers], model.quantize(latents())[0]
    plug_in(model, "vq", at=PLACES)
    unplug(model)
    assert [*model.quantizers] == originals
    assert torch.equal(model.quantize(latents())[0], before)
