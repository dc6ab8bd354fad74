"""A configuration is JSON with every class and option, and rebuilds the same; a hostile one builds nothing."""

import copy
import gc
import inspect
import json
import pickle
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch import distributed as dist

import quantizers
from quantizers import (
    BSQ,
    FSQ,
    EMAVectorQuantizer,
    GroupedQuantizer,
    Quantizer,
    ResidualQuantizer,
    SimVQ,
    VectorQuantizer,
    VQBridge,
)
from quantizers.codebooks.simvq import WideMatrix
from quantizers.core.arguments.configurable import configurable_classes
from quantizers.core.arguments.construction import Unserializable
from quantizers.core.registry import _BUILDERS
from quantizers.scalar.symmetric import SoftClamp
from quantizers.serialization.allowed_modules import allowed_classes
from quantizers.serialization.configuration import configuration, rebuild
from quantizers.training.regularizers import Entropy, Orthogonality, Regularizer, Wasserstein
from quantizers.training.schedules import LinearCommitment
from tests.cases import CASES, DIM, Case, halved, missing_of
from tests.docs.test_readme import blocks

ALL = [
    *CASES,
    Case("multiscale"),
    Case("multiscale", {"blends": [nn.Conv2d(DIM, DIM, (3, 3), padding="same")]}),
    Case("var"),
]
every_quantizer = pytest.mark.parametrize("case", ALL, ids=str)


def through_json(saved: dict[str, Any]) -> dict[str, Any]:
    """As other libraries write it: by their own order of keys, without NaN and infinity."""
    read: dict[str, Any] = json.loads(json.dumps(saved, sort_keys=True, allow_nan=False))
    return read


def shapes(quantizer: Quantizer) -> dict[str, tuple[Any, ...]]:
    tensors = [*quantizer.named_parameters(), *quantizer.named_buffers()]
    return {name: (tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in tensors}


def assert_rebuilt(quantizer: Quantizer, **missing: Any) -> Quantizer:
    saved = configuration(quantizer)
    again = rebuild(through_json(saved), **missing)
    assert type(again) is type(quantizer)
    assert str(again) == str(quantizer)
    if quantizer.frozen_codes is not None:  # the mask is state
        again.load_state_dict(quantizer.state_dict())
    assert list(again.state_dict()) == list(quantizer.state_dict())
    assert shapes(again) == shapes(quantizer)
    assert configuration(again) == saved
    return again


# Every class and option


@every_quantizer
def test_a_quantizer_is_rebuilt_from_json(case: Case) -> None:
    quantizer = case.build()
    again = assert_rebuilt(quantizer, **missing_of(case))
    numbers = {name: value for name, value in vars(quantizer).items() if isinstance(value, int | float | str)}
    assert {name: vars(again)[name] for name in numbers} == numbers


@every_quantizer
def test_copies_know_their_configuration_and_nothing_refers_to_itself(case: Case) -> None:
    quantizer = case.build()
    saved = configuration(quantizer)
    for copied in (copy.copy(quantizer), copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))):
        assert configuration(copied) == saved
    del copied
    alive = weakref.ref(quantizer)
    gc.disable()
    try:
        del quantizer
        assert alive() is None
    finally:
        gc.enable()


def test_every_registered_class_is_tried() -> None:
    tried = {type(module) for case in ALL for module in case.build().modules() if isinstance(module, Quantizer)}
    tried = {kind for kind in tried if kind.__module__.startswith("quantizers.")}
    classes = {each for name in quantizers.__all__ if inspect.isclass(each := getattr(quantizers, name))}
    assert tried == {each for each in classes if issubclass(each, Quantizer) and not inspect.isabstract(each)}


@given(
    levels=st.lists(st.integers(2, 9), min_size=1, max_size=6),
    dim=st.integers(1, 8),
    bound=st.sampled_from(["tanh", "ifsq", "clamp"]),
    gradient=st.sampled_from(["straight_through", quantizers.rotation, quantizers.reflection]),
    kind=st.sampled_from([tuple, list, lambda levels: np.array(levels).tolist()]),
)
def test_levels_and_options_of_fsq(
    levels: list[int], dim: int, bound: Any, gradient: Any, kind: Callable[[list[int]], Any]
) -> None:
    again = assert_rebuilt(FSQ(dim, kind(levels), bound=bound, gradient=gradient, channel_dim=1))
    assert isinstance(again, FSQ)
    assert (again.level_counts, again.bound, again.channel_dim) == (tuple(levels), bound, 1)


@given(
    free_nats=st.floats(0, allow_nan=False),
    weight=st.sampled_from([0, 1, np.float32(0.1), np.float64(0.1), np.int64(3)]),
)
def test_any_number_is_saved_exactly(free_nats: float, weight: Any) -> None:
    """Infinity too, for which JSON has no form; numpy's numbers become Python's."""
    again = assert_rebuilt(
        quantizers.BernoulliQuantizer(3, 8, free_nats=free_nats, kl_weight=weight), kl_weight=float(weight)
    )
    assert again.free_nats == free_nats
    assert type(again.kl_weight) in (int, float)
    assert again.kl_weight == weight


regularizers = st.one_of(
    st.builds(Entropy, st.floats(0, 9), temperature=st.floats(0.1, 9), diversity=st.floats(0, 9)),
    st.builds(Orthogonality, st.floats(0, 9)),
    st.builds(Wasserstein, st.floats(0, 9), moves=st.sampled_from(["codes", "both"])),
)


@given(chosen=st.lists(regularizers, max_size=3), distance=st.sampled_from(["euclidean", "cosine"]))
def test_regularizers_are_rebuilt(chosen: list[Regularizer], distance: Any) -> None:
    again = assert_rebuilt(VectorQuantizer(4, 8, regularizers=chosen, distance=distance))
    assert [(type(each), vars(each)) for each in again.regularizers] == [(type(e), vars(e)) for e in chosen]


MODULE_EXAMPLES = [
    nn.LogSigmoid(), nn.Sigmoid(), nn.Softsign(), nn.Tanh(), nn.Tanhshrink(),
    nn.Hardsigmoid(True), nn.Hardswish(True), nn.Mish(True), nn.ReLU(True), nn.ReLU6(True), nn.SELU(True),
    nn.SiLU(True), nn.Identity(), nn.CELU(0.5), nn.ELU(2.0, True), nn.GELU("tanh"), nn.Hardtanh(-2, 3),
    nn.LeakyReLU(0.3), nn.PReLU(4, 0.1), nn.Softplus(2.0, 30.0), nn.Linear(4, 4, bias=False), nn.Linear(4, 4),
    nn.LayerNorm(4), nn.LayerNorm((4,), 1e-3, bias=False), nn.GroupNorm(2, 4, affine=False),
    nn.Conv1d(4, 4, 3, padding=1, groups=2), nn.Conv2d(4, 4, (3, 1), 1, "same", bias=False), nn.Conv3d(4, 4, 1),
    quantizers.BlendConvolution(4, 2, 0.25), SoftClamp((5, 4, 3, 2)),
    nn.Sequential(), nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.GELU()), nn.Linear(8, 4)),
    *(SimVQ(4, 8, transform=name).transform for name in ("linear", "diagonal", "affine")), WideMatrix(4, 4),
    VQBridge(8, 4, patch_size=3, width=6, blocks=3, heads=2, gate=0.25),
]  # fmt: skip


@pytest.mark.parametrize("module", MODULE_EXAMPLES, ids=str)
def test_modules_are_rebuilt(module: nn.Module) -> None:
    again = assert_rebuilt(SimVQ(4, 8, transform=copy.deepcopy(module)))
    assert str(again.transform) == str(module)
    for made, first in zip(again.transform.modules(), module.modules(), strict=True):
        numbers = {
            name: value for name, value in vars(first).items() if isinstance(value, int | float | str | tuple)
        }
        assert {name: vars(made)[name] for name in numbers} == numbers


def test_every_module_of_the_list_is_tried() -> None:
    assert {type(module) for module in MODULE_EXAMPLES} == {*allowed_classes("module").values(), nn.Sequential}


def test_names_of_a_sequence_and_its_order_stay() -> None:
    parts = nn.Sequential()
    for name in ("b", "10", "2", "a"):
        parts.add_module(name, nn.Linear(4, 4))
    assert_rebuilt(SimVQ(4, 8, transform=parts))


# What is shared


def test_a_shared_codebook_stays_one() -> None:
    shared, own = EMAVectorQuantizer(4, 8), VectorQuantizer(4, 6)
    again = assert_rebuilt(ResidualQuantizer(4, [shared, own, shared]))
    assert again.order == (0, 1, 0)


def test_what_is_shared_between_components_stays_one() -> None:
    """In any order of the keys: `entry`, which refers to a module inside `stages`, comes first."""
    shared = VectorQuantizer(2, 8)
    groups = [GroupedQuantizer(4, [shared, VectorQuantizer(2, 8)]) for _ in range(2)]
    mapped = nn.Linear(4, 4)
    quantizer = ResidualQuantizer(4, [*groups, SimVQ(4, 8, transform=mapped)], entry=mapped)
    again = assert_rebuilt(quantizer)
    first, second, third = again.components
    assert first.components[0] is second.components[0]
    assert first.components[1] is not second.components[1]
    assert again.entry is third.transform
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in quantizer.parameters())


# What has been assigned


def test_annealed_numbers_go_on_as_they_are() -> None:
    quantizer = ResidualQuantizer(4, [VectorQuantizer(4, 8), BSQ(4, 16), quantizers.QINCo(4, 8)])
    schedule = LinearCommitment(quantizer, 0.0, 0.5, steps=4)
    schedule.step()
    quantizer.components[1].temperature = 0.125
    quantizer.dropout = 0.75
    quantizer.channel_dim = 1
    again = assert_rebuilt(quantizer)
    assert [part.commitment_weight for part in again.components] == [0.125] * 3
    assert (again.components[1].temperature, again.dropout, again.channel_dim) == (0.125, 0.75, 1)
    assert rebuild(configuration(quantizer), dropout=0.5).dropout == 0.5


class Doubled(VectorQuantizer):
    """Keeps another number than it gets, under the name of the argument."""

    def __init__(self, *args: Any, commitment_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, commitment_weight=2 * commitment_weight, **kwargs)


def test_a_number_that_the_constructor_changed_is_not_changed_twice() -> None:
    quantizer = Doubled(4, 8)
    quantizer.codebook_weight = 0.5  # which its constructor knows by **kwargs alone
    for weight in (2.0, 0.3):
        quantizer.commitment_weight = weight
        again = assert_rebuilt(quantizer)
        assert (again.commitment_weight, again.codebook_weight) == (weight, 0.5)


def test_a_group_of_ranks_is_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    assert assert_rebuilt(EMAVectorQuantizer(4, 8, process_group=None)).process_group is None
    quantizer = EMAVectorQuantizer(4, 8)
    quantizer.process_group = None
    assert assert_rebuilt(quantizer).process_group is None
    group = dist.HashStore() and dist.ProcessGroup(0, 1)
    monkeypatch.setattr(dist.ProcessGroup, "group_name", property(lambda group: "7"))
    for quantizer in (EMAVectorQuantizer(4, 8, process_group=group), EMAVectorQuantizer(4, 8)):
        quantizer.process_group = group
        saved = configuration(quantizer)
        assert saved["arguments"]["process_group"] == "world"
        assert rebuild(saved).process_group == "world"
        assert (
            configuration(copy.deepcopy(quantizer))
            == configuration(pickle.loads(pickle.dumps(quantizer)))
            == saved
        )


# What JSON cannot represent


class Half(nn.Module):
    """A user's map."""

    def forward(self, codes: Tensor) -> Tensor:
        return codes / 2


class OwnTanh(nn.Tanh):
    """Derived from a module that is listed, and another one."""


class OwnEntropy(Entropy):
    """Derived from a regularizer that is listed, and another one."""


@pytest.mark.parametrize(
    ("option", "value", "what"),
    [
        ("gradient", halved, "gradient was function halved"),
        ("gradient", lambda z, codes: z, "gradient was function <lambda>"),
        ("transform", Half(), "transform was an instance of Half"),
        (
            "transform",
            nn.Sequential(nn.Linear(4, 4), OwnTanh(), Half()),
            "transform was an instance of OwnTanh, .* Half",
        ),
        ("regularizers", [Entropy(), OwnEntropy()], "regularizers was an instance of OwnEntropy"),
    ],
)
def test_an_unserializable_option_is_required_by_name(option: str, value: Any, what: str) -> None:
    quantizer = SimVQ(4, 8, **{option: value})
    saved = through_json(configuration(quantizer))
    with pytest.raises(ValueError, match=rf"SimVQ is missing .*: {what}\. Pass them by name: {option}="):
        rebuild(saved)
    assert shapes(rebuild(saved, **{option: value})) == shapes(quantizer)


def test_what_is_missing_inside_is_given_by_name_or_by_path() -> None:
    other = lambda z, codes: z / 3  # noqa: E731
    quantizer = ResidualQuantizer(4, [VectorQuantizer(4, 8, gradient=g) for g in (halved, "rotation", other)])
    saved = through_json(configuration(quantizer))
    with pytest.raises(ValueError, match=r"stages.0.gradient was function halved; stages.2.gradient was"):
        rebuild(saved)
    everywhere = rebuild(saved, gradient=halved)
    assert [getattr(part.gradient, "function", part.gradient) for part in everywhere.components] == [
        halved, quantizers.rotation, halved,
    ]  # fmt: skip
    each = rebuild(saved, **{"stages.2.gradient": other, "gradient": halved, "stages.1.gradient": "reflection"})
    assert [getattr(part.gradient, "function", part.gradient) for part in each.components] == [
        halved, quantizers.reflection, other,
    ]  # fmt: skip


def test_an_override_that_fits_nothing_is_named() -> None:
    saved = configuration(ResidualQuantizer(4, [VectorQuantizer(4, 8)]))
    for name in ("gradient", "stages.1.distance", "stages.0.distanse"):
        with pytest.raises(ValueError, match=rf"no option '{name}' .*expected one of dim, .*, stages.0.distance"):
            rebuild(saved, **{name: "cosine"})
    assert rebuild(saved, **{"stages.0.distance": "cosine"}).components[0].distance == "cosine"


def test_an_option_that_is_newer_than_the_configuration_has_its_default_or_is_given() -> None:
    saved = configuration(VectorQuantizer(4, 8))
    del saved["arguments"]["distance"]
    assert [rebuild(saved).distance, rebuild(saved, distance="cosine").distance] == ["euclidean", "cosine"]


def test_a_module_that_was_replaced_is_required_by_name() -> None:
    quantizer = SimVQ(4, 8, transform=nn.Linear(4, 4))
    quantizer.transform = nn.Linear(4, 4, bias=False)
    with pytest.raises(ValueError, match="transform was an instance of Linear that the quantizer no longer"):
        rebuild(configuration(quantizer))


def test_an_unserializable_argument_is_not_kept_alive() -> None:
    table = torch.zeros(8, 4)
    quantizer = WithTable(4, 8, table=table)
    alive = weakref.ref(table)
    del table
    assert alive() is None
    assert quantizer._construction.named == {"table": Unserializable("Tensor")}
    assert torch.equal(rebuild(configuration(quantizer), table=torch.ones(8, 4)).embedding, torch.ones(8, 4))


# Quantizers of the user's


class WithTable(VectorQuantizer):
    """Its first codes are given."""

    def __init__(self, dim: int, codebook_size: int, *, table: Tensor) -> None:
        super().__init__(dim, codebook_size)
        self.set_codebook(table)


class Strange(VectorQuantizer):
    """Arguments of all kinds, with the names that a configuration itself uses."""

    def __init__(
        self, dim: int, /, quantizer: int, *ids: int, arguments: Any = None, function: Any = halved, **missing: Any
    ) -> None:
        super().__init__(dim // 2, quantizer)
        self.got = (dim, quantizer, ids, arguments, missing)
        self.function = function


@pytest.mark.parametrize(
    "make",
    [
        lambda: Strange(8, 3),
        lambda: Strange(8, 3, 5, 7, arguments={"same_as": 1, "id": [True, None]}, missing=(1, 2.5), id="a"),
        lambda: Strange(8, quantizer=3, arguments={"quantizer": {"missing": {}}}, mapping=range(2)),
    ],
)
def test_any_signature_is_saved(make: Callable[[], Strange]) -> None:
    quantizer = make()
    again = assert_rebuilt(quantizer)
    as_json = [json.dumps(each.got, sort_keys=True, default=list) for each in (again, quantizer)]
    assert as_json[0] == as_json[1]  # where tuples and ranges are lists
    assert again.function is halved  # the constructor supplies a default that JSON cannot represent


def test_registered_quantizers_are_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantizers.core.registry._BUILDERS", dict(_BUILDERS))
    quantizers.register("doubled", Doubled)
    quantizers.register("doubled_cosine", lambda **options: Doubled(distance="cosine", **options))
    (example,) = blocks("CONTRIBUTING.md")
    exec(compile(example, "CONTRIBUTING.md", "exec"), {"__name__": "fixed"})
    for name in ("doubled", "doubled_cosine", "fixed_vq"):
        assert_rebuilt(quantizers.create("residual", quantizer=name, dim=4, codebook_size=8))


def test_a_class_that_is_defined_again_is_the_latest_and_two_of_one_name_are_an_error() -> None:
    def define(module: str) -> type[VectorQuantizer]:
        return type("Cell", (VectorQuantizer,), {"__module__": module})

    first = define("notebook")
    quantizer = first(4, 8)
    latest = define("notebook")
    assert type(rebuild(configuration(quantizer))) is latest
    other = define("elsewhere")
    for made in (quantizer, other(4, 8)):
        with pytest.raises(ValueError, match=r"several quantizer classes are named 'Cell', notebook.Cell"):
            configuration(made)
    with pytest.raises(ValueError, match=r"several quantizer classes are named 'Cell', .*, elsewhere.Cell"):
        rebuild(saved_with(quantizer="Cell"))


# The record is transparent


def test_signatures_are_those_of_the_constructors() -> None:
    class Bare(Quantizer):
        """Without a constructor of its own."""

    for each in [Quantizer, Bare, VectorQuantizer, ResidualQuantizer, Doubled, Strange]:
        of_constructor = list(inspect.signature(each.__init__).parameters.values())[1:]
        assert list(inspect.signature(each).parameters.values()) == of_constructor


def test_a_quantizer_whose_constructor_did_not_run_says_so() -> None:
    old, state = VectorQuantizer.__new__(VectorQuantizer), dict(vars(VectorQuantizer(4, 8)))
    del state["_construction"]
    old.__setstate__(state)
    with pytest.raises(ValueError, match=r"arguments of this VectorQuantizer are not known .*did not run"):
        configuration(old)
    with pytest.raises(TypeError, match="quantizer is Linear, expected a Quantizer"):
        configuration(nn.Linear(2, 2))  # type: ignore[arg-type]


# Classes of the user's that a configuration may contain


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations that end with the test."""
    monkeypatch.setattr("quantizers.core.arguments.configurable._CONFIGURABLE", configurable_classes())


class Scaling(nn.Module):
    """A user's map, with an attribute for each argument, and another module inside."""

    def __init__(self, scale: float, then: nn.Module) -> None:
        super().__init__()
        self.scale = scale
        self.then = then

    def forward(self, codes: Tensor) -> Tensor:
        return self.scale * self.then(codes)


class Decay(Regularizer):
    """A user's regularizer, which stores its argument under another name."""

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)

    def __call__(self, z: Tensor, valid: Tensor, codes: Tensor) -> Tensor:
        return self.weight * codes.square().mean()


@pytest.mark.usefixtures("registered")
def test_a_registered_map_and_regularizer_are_rebuilt() -> None:
    assert quantizers.configurable("scale", "then")(Scaling) is Scaling
    quantizers.configurable(arguments=lambda decay: {"strength": decay.weight})(Decay)
    transform = nn.Sequential(Scaling(float("inf"), nn.Linear(4, 4)), nn.Tanh())
    again = assert_rebuilt(SimVQ(4, 8, transform=transform, regularizers=[Decay(0.5)]))
    assert type(again.transform[0]) is Scaling
    assert again.transform[0].scale == float("inf")
    assert [(type(each), each.weight) for each in again.regularizers] == [(Decay, 0.5)]


@pytest.mark.usefixtures("registered")
def test_a_registered_class_shares_its_modules_and_names_what_json_cannot_represent() -> None:
    quantizers.configurable("scale", "then")(Scaling)
    shared = nn.Linear(4, 4)
    again = assert_rebuilt(SimVQ(4, 8, transform=nn.Sequential(Scaling(2.0, shared), shared)))
    assert again.transform[0].then is again.transform[1]
    with pytest.raises(ValueError, match="transform was an instance of Half"):
        rebuild(configuration(SimVQ(4, 8, transform=Scaling(2.0, Half()))))


@pytest.mark.usefixtures("registered")
def test_registration_allows_that_class_alone_and_as_its_kind_alone() -> None:
    quantizers.configurable(arguments=lambda decay: {"strength": decay.weight})(Decay)
    derived = type("Derived", (Decay,), {})
    with pytest.raises(ValueError, match="regularizers was an instance of Derived"):
        rebuild(configuration(VectorQuantizer(4, 8, regularizers=[derived()])))
    for name in ("Decay", "Scaling"):
        with pytest.raises(ValueError, match=rf"module '{name}', expected one of nn.Identity, .*configurable"):
            rebuild(simvq({"module": name, "arguments": {}}))


@pytest.mark.usefixtures("registered")
def test_a_registered_class_that_is_defined_again_is_the_latest() -> None:
    def define(module: str) -> Any:
        return type("Cell", (Decay,), {"__module__": module})

    first, latest = (quantizers.configurable()(define("notebook")) for _ in range(2))
    again = rebuild(configuration(VectorQuantizer(4, 8, regularizers=[first()])))
    assert type(again.regularizers[0]) is latest
    with pytest.raises(ValueError, match=r"got elsewhere.Cell, but notebook.Cell is registered .*'Cell'; rename"):
        quantizers.configurable()(define("elsewhere"))


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (lambda: quantizers.configurable(Decay), "configurable got <class .*Decay.*expected names of options"),  # type: ignore[arg-type]
        (
            lambda: quantizers.configurable()(halved),
            "configurable got <function halved .*, expected a subclass of",
        ),
        (
            lambda: quantizers.configurable()(dict),
            "configurable got <class 'dict'>, expected a subclass of nn.Mod",
        ),
        (
            lambda: quantizers.configurable("dim")(Doubled),
            "got the quantizer class Doubled, expected another module",
        ),
        (lambda: quantizers.configurable("wight")(Decay), "options wight for Decay, .*unexpected .*'wight'"),
        (lambda: quantizers.configurable("scale")(Scaling), "options scale for Scaling, .*missing .*'then'"),
    ],
)
@pytest.mark.usefixtures("registered")
def test_a_wrong_registration_is_refused(register: Callable[[], object], message: str) -> None:
    before = configurable_classes()
    with pytest.raises(TypeError, match=message):
        register()
    assert configurable_classes() == before


# A configuration from a stranger

VQ = {"quantizer": "VectorQuantizer", "arguments": {"dim": 4, "codebook_size": 8}}


def saved_with(**entries: Any) -> dict[str, Any]:
    return {"format": 1, "version": "0.1.0", **VQ, **entries}


def simvq(transform: Any) -> dict[str, Any]:
    return saved_with(quantizer="SimVQ", arguments={"dim": 4, "codebook_size": 8, "transform": transform})


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (
            saved_with(quantizer="antigravity.Quantizer"),
            "no quantizer class is named 'antigravity.Quantizer' here",
        ),
        (saved_with(quantizer="quantizers.VectorQuantizer"), "did you mean .*VectorQuantizer"),
        (saved_with(quantizer="Quantizer"), "no quantizer class is named 'Quantizer' here"),  # abstract
        (saved_with(quantizer="Linear"), "no quantizer class"),
        (saved_with(quantizer=["eval"]), "with entries of the wrong types"),
        (simvq({"module": "os.system", "arguments": {"command": "false"}}), "module 'os.system', expected one of"),
        (simvq({"module": "antigravity", "arguments": {}}), "module 'antigravity', expected one of"),
        (simvq({"module": "nn.Bilinear", "arguments": {}}), "module 'nn.Bilinear', expected one of"),
        (simvq({"module": "VectorQuantizer", "arguments": {}}), "module 'VectorQuantizer', expected one of"),
        (simvq({"module": "nn.Sequential", "modules": [["a.b"]]}), "with entries of the wrong types"),
        (simvq({"module": "nn.Sequential", "modules": [5]}), "with entries of the wrong types"),
        (simvq({"module": "nn.Linear", "arguments": [4, 4]}), "with entries of the wrong types"),
        (
            simvq({"module": "nn.Linear", "arguments": {"in": 4}}),
            "do not fit the constructor of Linear: .*'in_features'",
        ),
        (simvq({"regularizer": "Regularizer", "arguments": {}}), "regularizer 'Regularizer', expected one of"),
        (simvq({"__reduce__": ["os.system", "false"]}), "not an object of its format"),
        (simvq({"float": "1e9"}), "not an object of its format"),
        (simvq({"same_as": 1}), "refers to the id 1, expected"),
        (simvq({"same_as": ["x"]}), "refers to the id"),
        (simvq({"module": "nn.Sequential", "id": 1, "modules": [["0", {"same_as": 1}]]}), "id 1, expected"),
        (saved_with(assigned={"forward": 1}), "assigns 1 to forward, expected a number for one of channel_dim"),
        (saved_with(assigned={"codebook_size": 9}), "assigns 9 to codebook_size"),
        (saved_with(assigned={"commitment_weight": "x"}), "assigns 'x' to commitment_weight, expected a number"),
        (saved_with(arguments={"codebook_size": 4}), "do not fit the constructor of VectorQuantizer: .*'dim'"),
        (saved_with(arguments={"dim": 4, "codebook_size": 8, "self": 1}), "constructor of VectorQuantizer"),
        (saved_with(format=2, version="7.0"), "format 2, expected 1: .*7.0 .*this is version 0.1.0"),
        ({"model_type": "bert"}, "expected a quantizer's configuration"),
        ([], "expected a quantizer's configuration"),
    ],
)
def test_a_hostile_configuration_builds_nothing(saved: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rebuild(saved)
    assert "antigravity" not in sys.modules


def test_a_configuration_is_not_changed_by_its_use() -> None:
    saved = configuration(ResidualQuantizer(4, [VectorQuantizer(4, 8)] * 2))
    before = copy.deepcopy(saved)
    rebuild(saved, dropout=0.5, **{"stages.0.distance": "cosine"})
    assert saved == before
