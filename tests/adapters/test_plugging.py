"""plug_in, unplug and take_codebook themselves, on small models with a quantizer like that of taming."""

import re
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import quantizers
from quantizers import FSQ, ResidualQuantizer, VectorQuantizer, plug_in, take_codebook, unplug
from quantizers.adapters import Adapter, QuantizerSpec, available_contracts, plugged, register_contract
from quantizers.adapters.recognition import _CONTRACTS
from tests.adapters.common import METHODS

WIDTH, CODES = 4, 8


class VectorQuantizer2(nn.Module):
    """Has the attributes that "taming" reads, and a forward."""

    def __init__(self, width: int = WIDTH, remap: str | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CODES, width)
        self.beta, self.legacy, self.remap, self.sane_index_shape = 0.25, False, remap, True

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, tuple[None, None, Tensor]]:
        rows = z.movedim(1, -1)
        indices = torch.cdist(rows.reshape(-1, rows.shape[-1]), self.embedding.weight).argmin(-1)
        codes = self.embedding(indices).reshape(rows.shape).movedim(-1, 1)
        return codes, (codes - z).square().mean(), (None, None, indices.reshape(rows.shape[:-1]))

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.embedding(indices).reshape(shape).movedim(-1, 1)


class Foreign(nn.Module):
    """Has no known class and no sizes to read; its forward is that of taming."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, tuple[None, None, Tensor]]:
        return z, z.new_zeros(()), (None, None, z[:, 0].long())


class Model(nn.Module):
    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, WIDTH, 1)
        self.vq = quantizer
        self.decoder = nn.Conv2d(WIDTH, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(self.vq(self.encoder(x))[0])
        return decoded


def built() -> Model:
    torch.manual_seed(0)
    return Model(VectorQuantizer2())


def two(**second: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"top": Model(VectorQuantizer2()), "bottom": Model(VectorQuantizer2(**second))})


def images() -> Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))


def modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return list(model.named_modules(remove_duplicate=False))


def same_state(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


OF_MAPS = [name for name in quantizers.available() if not quantizers.create(name, WIDTH, CODES).per_vector]


@pytest.mark.parametrize("name", sorted({*METHODS, *quantizers.available()} - {*OF_MAPS}))
def test_each_name_plugs_in(name: str) -> None:
    model, x = built(), images()
    before = modules(model)
    plug_in(model, name)
    assert model(x).shape == x.shape
    _, loss, (_, _, indices) = model.vq(model.encoder(x))
    assert loss.dim() == 0
    assert indices.shape[:3] == (2, 4, 5)
    assert modules(unplug(model)) == before


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("fsq", {"levels": (5, 4, 3)}, 60),
        ("fsq", {"codebook_size": 60}, 64),
        ("lattice", {"lattice": "barnes_wall"}, 4320),
        ("lattice", {"codebook_size": 3000}, 4320),
    ],
)
def test_options_that_give_a_size_replace_the_model_s(name: str, options: dict[str, Any], size: int) -> None:
    model = built()
    plug_in(model, name, **options)
    assert model.vq.quantizer.codebook_size == size


@pytest.mark.parametrize("name", OF_MAPS)
def test_a_quantizer_of_maps_does_not_fit(name: str) -> None:
    model = built()
    before = modules(model)
    with pytest.raises(ValueError, match="whose indices describe whole maps"):
        plug_in(model, name)
    assert modules(model) == before


def keeps_codes(quantizer: quantizers.Quantizer) -> bool:
    """Whether it has one codebook that can be set, and chooses the nearest code, or can be told to."""
    quantizer = quantizer.evaluated
    nearest = quantizer._index_rule.get("choice") in ("nearest", "logits")
    return nearest and hasattr(quantizer, "set_codebook") and not quantizer.composed


@pytest.mark.parametrize("name", quantizers.available())
def test_a_codebook_is_kept_or_the_model_is_left_alone(name: str) -> None:
    """A model whose codebook is kept gives what it gave, where its codes are compared as before."""
    model = built().eval()
    before = modules(model)
    z = model.encoder(images())
    quantized, _, (_, _, indices) = model.vq(z)
    if not keeps_codes(quantizers.create(name, WIDTH, CODES)):
        with pytest.raises(ValueError, match=r"cannot keep a codebook|nearest code|whole maps|has shape \(8, 4\)"):
            plug_in(model, name, keep_codebook=True)
        assert modules(model) == before
        return
    plug_in(model, name, keep_codebook=True)
    if getattr(model.vq.quantizer, "distance", "euclidean") == "euclidean":
        after, _, (_, _, found) = model.vq(z)
        assert torch.equal(found, indices)
        assert torch.equal(after, quantized)


def test_a_sampled_codebook_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match="does not choose the nearest code"):
        plug_in(built(), "gumbel", keep_codebook=True, logits="linear")


def test_a_model_without_a_quantizer() -> None:
    for model in (nn.Linear(2, 2), Model(Foreign()), Model(VectorQuantizer(WIDTH, CODES))):
        with pytest.raises(ValueError, match="no quantizer of a known contract was found"):
            plug_in(model, "vq")
        with pytest.raises(ValueError, match="no quantizer of a known contract was found"):
            take_codebook(model)
        with pytest.raises(ValueError, match="no quantizer plugged in"):
            unplug(model)


def test_a_path_that_is_not_there() -> None:
    for call in (lambda: plug_in(built(), "vq", at="vqq"), lambda: take_codebook(built(), at="vqq")):
        with pytest.raises(ValueError, match="Model, which has nothing at 'vqq'"):
            call()
    with pytest.raises(ValueError, match="at is empty"):
        plug_in(built(), "vq", at=[])
    with pytest.raises(ValueError, match="at 'encoder' is Conv2d, which was not plugged in"):
        unplug(plug_in(built(), "vq"), at="encoder")
    with pytest.raises(
        ValueError, match="at 'encoder' is Conv2d, which follows no known contract; pass contract="
    ):
        plug_in(built(), "vq", at="encoder")
    with pytest.raises(
        ValueError, match=r"at 'encoder' is Conv2d, which follows no known contract; .* lists the contracts"
    ):
        take_codebook(built(), at="encoder")


def test_what_is_no_model_and_no_path() -> None:
    for call in (plug_in, lambda model, _: unplug(model, at="vq"), lambda model, _: take_codebook(model)):
        with pytest.raises(TypeError, match=r"model is a str, expected an nn\.Module"):
            call("model", "vq")
    for at in (3, ["vq", 3]):
        with pytest.raises(TypeError, match=rf"at is {re.escape(repr(at))}, expected the path"):
            plug_in(built(), "vq", at=at)


def test_a_quantizer_that_is_compiled_by_itself() -> None:
    """It would run the old one for good, where a model that is compiled as a whole sees the new one."""
    model, x = built().eval(), images()
    model.vq = torch.compile(model.vq, backend="eager")
    with pytest.raises(ValueError, match="the quantizer at 'vq' was compiled on its own"):
        plug_in(model, "vq")
    adapter = plug_in(built().eval(), "vq").vq
    with pytest.raises(ValueError, match="was compiled on its own"):
        unplug(torch.nn.Sequential(torch.compile(adapter, backend="eager")))
    model = built().eval()
    whole = torch.compile(model, backend="eager")
    before = whole(x)
    plug_in(whole, "simvq")
    assert torch.equal(whole(x), model(x))
    assert not torch.equal(whole(x), before)
    assert torch.equal(unplug(whole)(x), before)


def test_a_contract_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="no contract is named 'tamming'; did you mean 'taming'"):
        plug_in(built(), "vq", contract="tamming")


def test_a_module_that_a_contract_cannot_read_needs_its_sizes() -> None:
    model = Model(Foreign())
    with pytest.raises(
        ValueError, match=r"at 'vq' is Foreign, whose sizes .* cannot read .*; pass dim=, codebook_size="
    ):
        plug_in(model, "vq", at="vq", contract="taming", dim=WIDTH)
    with pytest.raises(ValueError, match="pass dim=, codebook_size=, num_quantizers="):
        plug_in(model, "vq", at="vq", contract="vector_quantize_pytorch_residual", dim=WIDTH, codebook_size=CODES)
    with pytest.raises(ValueError, match="at 'vq' is Foreign, whose codes contract 'taming' cannot read"):
        plug_in(model, "vq", at="vq", contract="taming", dim=WIDTH, codebook_size=CODES, keep_codebook=True)
    assert isinstance(model.vq, Foreign)
    plug_in(model, "vq", at="vq", contract="taming", dim=WIDTH, codebook_size=CODES)
    assert (model.vq.quantizer.dim, model.vq.quantizer.codebook_size) == (WIDTH, CODES)
    assert model(images()).shape == images().shape


FOREIGN_CONTRACTS = [
    name for name in available_contracts() if _CONTRACTS[name].__module__.startswith("quantizers.")
]


@pytest.mark.parametrize("contract", FOREIGN_CONTRACTS)
def test_each_contract_takes_a_module_that_it_cannot_read(contract: str) -> None:
    """Its forward does not read settings that are not there; sizes and axis are as they are said."""
    stages: dict[str, Any] = {"num_quantizers": 2} if _CONTRACTS[contract].has_stages else {}
    stages |= {"scales": (0.5, 1)} if _CONTRACTS[contract].has_scales else {}
    model = nn.Sequential(Foreign())
    plug_in(model, "vq", at="0", contract=contract, dim=WIDTH, codebook_size=CODES, channel_dim=-1, **stages)
    assert model[0].quantizer.channel_dim == -1
    if contract.startswith("vector_quantize_pytorch"):
        assert model(torch.randn(2, 5, WIDTH))[0].shape == (2, 5, WIDTH)


def test_sizes_are_the_models() -> None:
    for name, value in (("dim", WIDTH + 1), ("channel_dim", -1)):
        with pytest.raises(ValueError, match=f"{name} is {value}, but VectorQuantizer2 at 'vq' has"):
            plug_in(built(), "vq", **{name: value})
    model = plug_in(built(), "vq", dim=WIDTH, channel_dim=1, codebook_size=5, code_dim=2)
    assert (model.vq.quantizer.codebook_size, model.vq.quantizer.code_dim) == (5, 2)


def test_a_setting_that_is_not_kept_is_named() -> None:
    with pytest.raises(ValueError, match=r"remap.*expected remap=None"):
        plug_in(Model(VectorQuantizer2(remap="used.npy")), "vq")


def test_quantizers_that_are_built() -> None:
    model, own = built(), VectorQuantizer(WIDTH, CODES, channel_dim=1)
    assert plug_in(model, own).vq.quantizer is own
    refused = (
        (
            VectorQuantizer(WIDTH + 1, CODES, channel_dim=1),
            {},
            "dim=5, but the model passes vectors of 4 channels",
        ),
        (VectorQuantizer(WIDTH, CODES), {}, "expected channel_dim=1"),
        (own, {"commitment_weight": 1.0}, r"got options \['commitment_weight'\] with a quantizer"),
        (nn.Identity(), {}, "quantizer is Identity, expected a name, a class or a Quantizer"),
        (3, {}, "quantizer is int, expected a name, a class or a Quantizer"),
    )
    for quantizer, options, message in refused:
        with pytest.raises(ValueError, match=message):
            plug_in(model, quantizer, **options)
    assert model.vq.quantizer is own
    paths = ["top.vq", "bottom.vq"]
    with pytest.raises(ValueError, match="one quantizer cannot replace 2"):
        plug_in(two(), own, at=paths)
    assert set(plugged(plug_in(two(), VectorQuantizer, at=paths))) == set(paths)


def test_stages_are_asked_for() -> None:
    place = {"at": "vq", "contract": "vector_quantize_pytorch_residual"}
    sizes = {"dim": WIDTH, "codebook_size": CODES, "num_quantizers": 2, "channel_dim": 1}
    own = VectorQuantizer(WIDTH, CODES, channel_dim=1)
    with pytest.raises(ValueError, match="one code per vector, but this model expects stages"):
        plug_in(Model(Foreign()), own, **place)
    stages = ResidualQuantizer(WIDTH, [VectorQuantizer(WIDTH, CODES)], channel_dim=1)
    assert plug_in(Model(Foreign()), stages, **place).vq.quantizer is stages
    model = plug_in(Model(Foreign()), "residual", quantizer="simvq", **place, **sizes)
    assert [type(part).__name__ for part in model.vq.quantizer.components] == ["SimVQ", "SimVQ"]


def test_two_places() -> None:
    model = two()
    with pytest.raises(
        ValueError, match=r"at 'top.vq' \(VectorQuantizer2\), 'bottom.vq' .*; pass one path as at="
    ):
        plug_in(model, "vq")
    originals = model["top"].vq, model["bottom"].vq
    plug_in(model, "simvq", at=["top.vq", "bottom.vq"])
    assert model["top"].vq.quantizer is not model["bottom"].vq.quantizer
    unplug(model, at="bottom.vq")
    assert list(plugged(model)) == ["top.vq"]
    assert model["bottom"].vq is originals[1]
    unplug(model)
    assert model["top"].vq is originals[0]


def test_an_error_at_the_second_place_leaves_the_first() -> None:
    model = two(remap="used.npy")
    before, state = modules(model), {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="remap"):
        plug_in(model, "vq", at=["top.vq", "bottom.vq"])
    assert modules(model) == before
    assert same_state(model.state_dict(), state)


def test_places_stand_apart() -> None:
    model = nn.ModuleDict({"outer": nn.Sequential(VectorQuantizer2())})
    sizes = {"contract": "taming", "dim": WIDTH, "codebook_size": CODES}
    with pytest.raises(ValueError, match=r"'outer\.0' is inside 'outer'; expected modules that are apart"):
        plug_in(model, "vq", at=["outer", "outer.0"], **sizes)


def test_a_model_that_is_the_quantizer() -> None:
    original = VectorQuantizer2()
    adapter = plug_in(original, "vq")
    assert isinstance(adapter, Adapter)
    assert adapter.original is original
    assert plug_in(adapter, "simvq").original is original
    assert unplug(adapter) is original


@pytest.mark.parametrize("at", [None, "a.vq", ["a.vq", "b"]])
def test_a_module_of_two_names_is_one_place(at: Any) -> None:
    model = nn.Module()
    model.a = built()
    model.b = model.a.vq
    original = model.b
    plug_in(model, VectorQuantizer(WIDTH, CODES, channel_dim=1), at=at)
    assert isinstance(model.b, Adapter)
    assert model.a.vq is model.b
    unplug(model, at=at)
    assert model.a.vq is original
    assert model.b is original


@pytest.mark.parametrize("holder", [nn.ModuleList, nn.Sequential])
def test_places_in_lists(holder: type[nn.Module]) -> None:
    model = holder([VectorQuantizer2()]) if holder is nn.ModuleList else holder(nn.Identity(), VectorQuantizer2())
    names = [name for name, _ in model.named_children()]
    plug_in(model, "vq")
    assert isinstance(model[-1], Adapter)
    assert [name for name, _ in model.named_children()] == names
    assert isinstance(unplug(model)[-1], VectorQuantizer2)


def test_plugging_over_a_plug() -> None:
    model = built()
    original = model.vq
    plug_in(model, "simvq")
    first = model.vq.quantizer
    plug_in(model, "ema_vq")
    assert model.vq.original is original
    assert all(module is not first for module in model.modules())
    with pytest.raises(ValueError, match="at 'vq' was plugged in: unplug it first"):
        plug_in(model, "vq", keep_codebook=True)
    assert unplug(model).vq is original


def test_take_codebook_is_a_copy_of_what_stands_there() -> None:
    model = built()
    taken = take_codebook(model)
    assert torch.equal(taken, model.vq.embedding.weight)
    assert not taken.requires_grad
    taken.zero_()
    assert model.vq.embedding.weight.any()
    plug_in(model, "simvq")
    new = take_codebook(plug_in(model, "vq"), at="vq")
    assert torch.equal(new, model.vq.quantizer.codebook)
    new.zero_()
    assert model.vq.quantizer.codebook.any()
    assert not torch.equal(take_codebook(model), unplug(model).vq.embedding.weight)


def test_the_original_is_neither_saved_nor_trained() -> None:
    model = built()
    own = {id(parameter) for parameter in model.vq.parameters()}
    plug_in(model, "vq")
    assert set(model.vq.state_dict()) == {"quantizer.embedding", "quantizer.index_format"}
    assert not any(id(parameter) in own for parameter in model.parameters())
    assert model.vq.original not in list(model.modules())


@pytest.mark.parametrize("name", ["vq", "none"])
@pytest.mark.parametrize("training", [True, False])
def test_mode_and_device_are_the_places(name: str, training: bool) -> None:
    """Also for a quantizer without a tensor that would show its device."""
    model = built().to("meta").train(not training)
    model.vq.train(training)
    plug_in(model, name)
    assert model.vq.training is model.vq.quantizer.training is training
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    model.vq.train(not training)
    original = unplug(model).vq
    assert original.training is not training
    assert original.embedding.weight.is_meta


def test_the_original_comes_to_where_the_model_went() -> None:
    model = plug_in(built(), "none").to("meta")
    assert model.vq.original.embedding.weight.device.type == "cpu"
    assert unplug(model).vq.embedding.weight.is_meta


class OwnQuantizer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(CODES, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.table[torch.cdist(x, self.table).argmin(-1)]


class OwnAdapter(Adapter):
    """x [..., WIDTH] → quantized alone."""

    contract: ClassVar[str] = "own"
    classes: ClassVar[tuple[str, ...]] = ("OwnQuantizer",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        size, dim = original.table.shape
        return QuantizerSpec(dim, size, cls.channel_dim)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return original.table

    def forward(self, x: Tensor) -> Tensor:
        return self.quantizer(x).quantized


def test_a_contract_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_CONTRACTS, "own", OwnAdapter)  # so that it is gone afterwards
    del _CONTRACTS["own"]
    model = nn.Sequential(nn.Linear(3, WIDTH), OwnQuantizer())
    with pytest.raises(ValueError, match="no quantizer of a known contract"):
        plug_in(model, "vq")
    register_contract(OwnAdapter)
    assert "own" in available_contracts()
    with pytest.raises(ValueError, match="'own' is registered already"):
        register_contract(OwnAdapter)
    original, x = model[1], torch.randn(5, 3)
    plug_in(model, "vq", keep_codebook=True)
    assert torch.equal(take_codebook(model), original.table)
    assert (model(x)[:, None] == original.table).all(-1).any(-1).all()
    assert unplug(model)[1] is original


def test_instances_that_cannot_take_stages_over() -> None:
    """Their number, entry and scales are checked before a code is copied."""
    from quantizers.adapters.bases.copying import stages_of

    parts = [VectorQuantizer(WIDTH, CODES) for _ in range(2)]
    for quantizer, message in (
        (FSQ(2, (5, 5)), "FSQ, which cannot keep the codebooks of stages"),
        (ResidualQuantizer(WIDTH, parts), "has 2 stages; expected 3, one for each"),
        (ResidualQuantizer(WIDTH, [*parts, *parts[:1]], entry=nn.Tanh()), "scales or bounds"),
        (ResidualQuantizer(WIDTH, [*parts, *parts[:1]], scales=(1, 1, 1)), "scales or bounds"),
    ):
        with pytest.raises(ValueError, match=message):
            stages_of(quantizer, 3)
    assert stages_of(ResidualQuantizer(WIDTH, parts), 2) == parts
