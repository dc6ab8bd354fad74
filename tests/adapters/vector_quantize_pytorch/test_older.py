"""VectorQuantize and ResidualVQ of older versions, as VQ-BeT calls them, against stand-ins."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantizers import plug_in, take_codebook
from quantizers.adapters.recognition import contract_named, contract_of
from tests.adapters.common import METHODS, check_unplugs, loss_falls
from tests.adapters.round_trip import check_loads
from tests.adapters.vector_quantize_pytorch.stand_in_older import LeRobotResidualVQ, ResidualVQ, VectorQuantize

WIDTH, CODES, STAGES, ACTIONS = 8, 16, 2, 10
EPS = torch.finfo(torch.float32).eps
SINGLE, OLDER, LEROBOT = "vector_quantize_pytorch_older", "vector_quantize_pytorch_residual_older", "lerobot"


def original(contract: str, **options: Any) -> Any:
    torch.manual_seed(0)
    if contract == SINGLE:
        return VectorQuantize(WIDTH, codebook_size=CODES, **options)
    cls = LeRobotResidualVQ if contract == LEROBOT else ResidualVQ
    return cls(WIDTH, STAGES, codebook_size=CODES, **options)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {
    name: partial(original, name) for name in (SINGLE, OLDER, LEROBOT)
}
every_contract = pytest.mark.parametrize("contract", ORIGINALS)
copies = pytest.mark.parametrize("contract", [OLDER, LEROBOT])


class VqVae(nn.Module):
    """The autoencoder of actions, which calls its quantizer as VQ-BeT's in LeRobot does."""

    def __init__(self, contract: str) -> None:
        super().__init__()
        self.lookup = "get_codebook_vector_from_indices" if contract == LEROBOT else "get_codes_from_indices"
        self.encoder = nn.Linear(ACTIONS, WIDTH)
        self.vq_layer = original(contract)
        self.decoder = nn.Linear(WIDTH, ACTIONS)

    def forward(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        state = self.encoder(actions)
        flat = state.view(state.size(0), -1, state.size(1))
        flat, codes, loss = self.vq_layer(flat)
        return self.decoder(flat.view(*state.shape[:-1], -1)), codes.view(*state.shape[:-1], -1), torch.sum(loss)

    def get_embeddings_from_code(self, indices: Tensor) -> Tensor:
        with torch.no_grad():
            return getattr(self.vq_layer, self.lookup)(indices).sum(dim=0)

    def finish_first_phase(self) -> None:
        self.vq_layer.freeze_codebook.fill_(True)
        for parameter in self.vq_layer.parameters():
            parameter.requires_grad = False


def build(contract: str) -> VqVae:
    torch.manual_seed(0)
    return VqVae(contract)


def actions() -> Tensor:
    return torch.randn(40, ACTIONS, generator=torch.Generator().manual_seed(1))


def inputs(seed: int = 1) -> Tensor:
    return torch.randn(2, 40, WIDTH, generator=torch.Generator().manual_seed(seed))


def kept(module: nn.Module, name: str = "ema_vq") -> Any:
    return plug_in(nn.Sequential(copy.deepcopy(module)), name, keep_codebook=True)[0]


@copies
@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(contract: str, name: str) -> None:
    model, x = build(contract), actions()
    plug_in(model, name)

    def losses() -> tuple[Tensor, Tensor]:
        decoded, _, loss = model(x)
        return functional.mse_loss(decoded, x), loss

    loss_falls(model, losses, rate=1e-2)
    model.eval()
    decoded, codes, _ = model(x)
    assert codes.shape == (40, STAGES)
    # As in the original, codes are looked up before they are projected.
    found = model.vq_layer.quantizer.project_out(model.get_embeddings_from_code(codes))
    if name != "fsq":  # whose residual form divides its stages by scales
        torch.testing.assert_close(model.decoder(found), decoded)


@pytest.mark.parametrize("name", METHODS)
def test_one_codebook_trains_encodes_and_decodes(name: str) -> None:
    model = nn.Sequential(nn.Linear(ACTIONS, WIDTH), original(SINGLE))
    plug_in(model, name)
    decoder, x = nn.Linear(WIDTH, ACTIONS), actions()[None]

    def losses() -> tuple[Tensor, Tensor]:
        quantized, _, loss = model(x)
        assert loss.shape == (1,)
        return functional.mse_loss(decoder(quantized), x), loss.sum()

    loss_falls(nn.ModuleList([model, decoder]), losses, rate=1e-2)
    quantized, indices, _ = model.eval()(x)
    torch.testing.assert_close(model[1].get_output_from_indices(indices), quantized)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"decay": 0.7, "commitment_weight": 0.5},
    "projected": {"codebook_dim": 4},
    "cosine": {"use_cosine_sim": True},
}


@every_contract
@pytest.mark.parametrize("setting", SETTINGS)
def test_kept_codes_give_and_learn_what_the_original_does(contract: str, setting: str) -> None:
    """In evaluation and in three steps of training, whose averages move the codes.

    The codes after some steps are sums and quotients of those before, each rounded: within 10⁻⁵ of values near 1.
    """
    module = original(contract, **SETTINGS[setting])
    for seed in range(4):
        module(inputs(seed))
    codebook = take_codebook(nn.Sequential(module))
    adapter = kept(module)
    # Unit vectors are divided by their norm once more, which rounds as often as there are channels.
    atol = (WIDTH + 3) * EPS if setting == "cosine" else 0
    torch.testing.assert_close(take_codebook(nn.Sequential(adapter)), codebook, rtol=0, atol=atol)
    for own in (module, adapter):
        own.eval()
    for seed in range(5, 9):
        old, new = module(inputs(seed)), adapter(inputs(seed))
        same = (old[1] == new[1]).reshape(80, -1).all(-1)
        assert same.float().mean() > 0.95
        assert new[2].shape == old[2].shape == ((1,) if contract == SINGLE else (1, STAGES))
        torch.testing.assert_close(new[0].reshape(80, -1)[same], old[0].reshape(80, -1)[same], rtol=0, atol=1e-5)
        if module.training:
            torch.testing.assert_close(new[2], old[2], rtol=1e-4, atol=0)
        for own in (module, adapter):
            own.train()


@copies
def test_codes_of_stages_are_those_of_the_original(contract: str) -> None:
    module = original(contract).eval()
    adapter = kept(module).eval()
    indices = module(inputs())[1]
    lookup = "get_codebook_vector_from_indices" if contract == LEROBOT else "get_codes_from_indices"
    for shape in ((2, 40, STAGES), (80, STAGES)):
        own = indices.reshape(shape)
        assert torch.equal(getattr(adapter, lookup)(own), getattr(module, lookup)(own))
    all_codes = adapter(inputs(), return_all_codes=True)[3]
    assert torch.equal(all_codes, module(inputs(), return_all_codes=True)[3])
    logits = torch.randn(5, STAGES, CODES)
    torch.testing.assert_close(adapter.draw_logits_forward(logits), module.draw_logits_forward(logits))


def test_weights_of_codes_need_stages_of_one_size() -> None:
    module = original(OLDER)
    adapter = plug_in(nn.Sequential(module), "residual", quantizer="vq", codebook_size=[4, 8])[0]
    with pytest.raises(ValueError, match=r"stages have \(4, 8\) codes; expected the same number in each"):
        adapter.draw_logits_forward(torch.zeros(1, 2, 8))


def test_masked_positions_are_what_came_in() -> None:
    module = original(SINGLE).eval()
    mask = torch.arange(40).expand(2, -1) < 30
    adapter = kept(module).eval()
    torch.testing.assert_close(adapter(inputs(), mask=mask)[0], module(inputs(), mask=mask)[0])
    residual = kept(original(OLDER)).eval()
    assert torch.equal(residual(inputs(), mask=mask)[0][~mask], inputs()[~mask])
    module.return_zeros_for_masked_padding = True  # an option of version 1.16
    assert (plug_in(nn.Sequential(module), "vq")[0](inputs(), mask=mask)[0][~mask] == 0).all()


def test_a_shared_codebook_is_kept_as_one() -> None:
    adapter = kept(original(OLDER, shared_codebook=True))
    first, second = adapter.quantizer.stages
    assert first is second


def test_codes_that_learn_by_gradient_are_weighted_like_the_original() -> None:
    adapter = kept(original(SINGLE, learnable_codebook=True, commitment_weight=0.5), "vq")
    assert (adapter.quantizer.commitment_weight, adapter.quantizer.codebook_weight) == (0.5, 0.5)


@pytest.mark.parametrize("name", ["ema_vq", "vq"])
def test_lerobot_freezes_the_codes_after_its_first_phase(name: str) -> None:
    model = plug_in(build(LEROBOT), name)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    def moved() -> bool:
        before = model.vq_layer.codebooks.clone()
        decoded, _, loss = model.train()(actions())
        optimizer.zero_grad()
        (decoded.square().mean() + loss).backward()
        optimizer.step()
        return not torch.equal(model.vq_layer.codebooks, before)

    assert not model.vq_layer.freeze_codebook
    assert moved()
    model.finish_first_phase()
    assert model.vq_layer.freeze_codebook
    assert not moved()
    state, model = model.state_dict(), plug_in(build(LEROBOT), name)
    model.load_state_dict(state)
    assert model.vq_layer.freeze_codebook
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    assert not moved()
    model.vq_layer.freeze_codebook.fill_(False)
    assert moved()


def test_a_quantizer_that_is_frozen_already_stays_so() -> None:
    module = original(LEROBOT)
    module.freeze_codebook.fill_(True)
    assert kept(module).quantizer.frozen
    assert not plug_in(nn.Sequential(original(LEROBOT)), "vq")[0].quantizer.frozen


def test_versions_are_told_apart() -> None:
    for name, make in ORIGINALS.items():
        assert contract_of(make()) is contract_named(name)
    current: Any = original(OLDER)
    current.beam_score_weights = torch.ones(STAGES)
    assert contract_of(current) is not contract_named(OLDER)
    with pytest.raises(ValueError, match="it has beam_score_weights, which came with later versions"):
        plug_in(nn.Sequential(current), "vq", at="0", contract=OLDER)
    current = original(SINGLE)
    current.directional_reparam = False
    with pytest.raises(ValueError, match="it has directional_reparam, which came with later versions"):
        plug_in(nn.Sequential(current), "vq", at="0", contract=SINGLE)


@copies
def test_loads_what_it_saves(contract: str) -> None:
    check_loads(lambda: plug_in(build(contract), "simvq"), lambda model: model(actions())[0])


@copies
def test_unplug_puts_back_what_stood_there(contract: str) -> None:
    model = build(contract).eval()
    check_unplugs(model, "vq_layer", lambda: model(actions())[0])
