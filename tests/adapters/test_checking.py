"""What `plug_in` compares before it replaces a quantizer, and that a run leaves no trace."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import quantizers
from quantizers import plug_in
from quantizers.adapters import Adapter, QuantizerSpec, recognition
from quantizers.adapters.checking.contract import check_contract
from quantizers.adapters.checking.preserving import preserved
from quantizers.adapters.checking.results import TOLERANCE, Comparison, described
from tests.adapters.test_plugging import CODES, WIDTH, Model, VectorQuantizer2, built, modules, same_state, two

VECTORS = 12


class Named(NamedTuple):
    quantized: Any
    indices: Any


@dataclass
class Fields:
    quantized: Any
    indices: Any


def leaves() -> st.SearchStrategy[Callable[[], Any]]:
    """Functions that make the same leaf anew each time."""
    shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3)
    floats = shapes.map(lambda shape: lambda: torch.arange(float(torch.Size(shape).numel())).reshape(shape) + 1)
    integers = shapes.map(lambda shape: lambda: torch.arange(torch.Size(shape).numel()).reshape(shape))
    others = st.sampled_from([None, 3, 2.5, "name", True]).map(lambda value: lambda: value)
    return st.one_of(floats, integers, others)


def results() -> st.SearchStrategy[Callable[[], Any]]:
    """Functions that make the same nested result anew each time."""
    return st.recursive(
        leaves(),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: lambda: tuple(part() for part in parts)),
            st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(
                lambda parts: lambda: {name: part() for name, part in parts.items()}
            ),
            st.tuples(inner, inner).map(lambda parts: lambda: Named(parts[0](), parts[1]())),
            st.tuples(inner, inner).map(lambda parts: lambda: Fields(parts[0](), parts[1]())),
        ),
        max_leaves=6,
    )


def differences(one: Any, other: Any, values: bool = True) -> list[tuple[str, str]]:
    return list(Comparison(VECTORS, values).differences(one, other))


@given(make=results())
def test_a_result_equals_itself(make: Callable[[], Any]) -> None:
    assert differences(make(), make()) == []
    assert described(make())


@given(make=results(), more=leaves())
def test_a_result_with_another_part_differs(make: Callable[[], Any], more: Callable[[], Any]) -> None:
    expected = (make(), more())
    assert differences(expected, expected[0])
    assert differences(expected, (*expected, None))
    assert differences({"a": expected}, {"b": expected})


@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_shapes_and_kinds_count(shape: list[int]) -> None:
    x = torch.ones(shape)
    assert differences(x, x[None]) != []
    assert differences(x, x.long()) != []
    assert differences(x, None) != []
    assert differences(x.long(), x.int()) == []
    assert differences(x.long(), x.bool()) != []
    is_short = x.numel() < VECTORS
    assert (differences(x, x.bfloat16()) == []) == is_short


@given(count=st.integers(VECTORS, 50), changed=st.integers(1, 50))
def test_values_of_a_tenth_may_differ(count: int, changed: int) -> None:
    """Both of indices and of vectors; and roundings do not count."""
    changed = min(changed, count)
    x = torch.arange(1.0, count + 1)
    y = x.clone()
    y[:changed] += 2 * TOLERANCE * count + 1
    tolerated = changed / count <= 0.1
    assert (differences(x, y) == []) == tolerated
    assert (differences(x.long(), y.long()) == []) == tolerated
    assert differences(x, y, values=False) == []
    assert differences(x, x * (1 + TOLERANCE / 2)) == []


def test_losses_are_not_compared_in_value() -> None:
    assert differences(torch.tensor(1.0), torch.tensor(2.0)) == []
    assert differences(torch.ones(VECTORS - 1), torch.zeros(VECTORS - 1)) == []


def test_a_result_is_described_by_shapes() -> None:
    assert described((torch.ones(2, 3), None, {"a": [torch.ones(1).long()]})) == (
        "(float32 [2, 3], None, {'a': [int64 [1]]})"
    )
    assert described((None,)) == "(None,)"


class Restless(nn.Module):
    """Changes all that a forward can change."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("seen", torch.full((2,), float("nan")), persistent=False)
        self.plain = torch.zeros(2)
        self.counts: dict[str, int] = {}
        self.history: list[int] = []
        self.ready = False

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.linear.weight += random.random() + torch.rand(())
            self.steps += 1
            self.plain += 1
        self.seen = torch.ones(2)
        self.counts["runs"] = 1
        self.history.append(1)
        self.ready, self.new = True, nn.Linear(2, 2)
        return self.linear(x)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_a_run_leaves_no_trace(training: bool, fails: bool) -> None:
    module = Restless().train(training)
    objects = dict(vars(module))
    containers = module.counts, module.history, module._buffers, module._modules
    tensors = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    generators = torch.get_rng_state(), random.getstate()
    try:
        with preserved(module):
            module.eval()(torch.ones(3))
            if fails:
                raise LookupError
    except LookupError:
        pass
    assert vars(module).keys() == objects.keys()
    assert all(vars(module)[name] is value for name, value in objects.items())
    assert containers[:2] == ({}, [])
    assert set(module._buffers) == {"steps", "seen"}
    assert module.seen.isnan().all()
    assert not module.plain.any()
    assert not hasattr(module, "new")
    assert module.training == module.linear.training == training
    assert same_state(module.state_dict(), tensors)
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]


class Sampler(VectorQuantizer2):
    """Returns its results in another order than "taming" says."""

    def forward(self, z: Tensor) -> Any:
        quantized, loss, info = super().forward(z)
        return quantized, info, loss


Sampler.__name__ = "VectorQuantizer2"


def test_the_error_says_what_was_met_and_what_the_contract_gives() -> None:
    model = Model(Sampler())
    before, state = modules(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="another way") as raised:
        plug_in(model, "vq")
    message = str(raised.value)
    for part in (
        f"at 'vq' is VectorQuantizer2 of {__name__}",
        "it looks like contract 'taming', but forward returns (float32 [2, 4, 8, 8], (None, None, int64 [2",
        "[1] is (None, None, int64 [2, 8, 8]) where the contract gives float32 []",
        "The model is unchanged",
        "quantizers.adapters.register_contract",
    ):
        assert part in message
    assert modules(model) == before
    assert same_state(model.state_dict(), state)
    with pytest.warns(UserWarning, match="which overrides forward; contract 'taming' replaces it"):
        plug_in(model, "vq", contract="taming", at="vq")  # the caller's word counts


def test_a_model_without_values_is_checked_too() -> None:
    with pytest.raises(ValueError, match=r"where the contract gives float32 \[\]"):
        plug_in(Model(Sampler()).to("meta"), "vq")
    assert plug_in(built().to("meta"), "vq").vq.quantizer.embedding.is_meta


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_other_dtypes_are_checked_too(dtype: torch.dtype) -> None:
    plug_in(built().to(dtype), "vq", keep_codebook=True)
    with pytest.raises(ValueError, match="another way"):
        plug_in(Model(Sampler()).to(dtype), "vq")


class ProductVQ(nn.Module):
    """A quantizer that no contract knows."""


def test_a_quantizer_that_is_not_known_beside_one_that_is() -> None:
    """It would be forgotten in silence. Modules inside and around the known one do not count."""
    model = built()
    model.second = nn.ModuleList([ProductVQ()])
    before = modules(model)
    with pytest.raises(
        ValueError, match=r"at 'vq' \(VectorQuantizer2\), and one of no .* 'second.0' \(ProductVQ\)"
    ):
        plug_in(model, "vq")
    assert modules(model) == before
    plug_in(model, "vq", at="vq")
    inside = built()
    inside.vq.codebook = ProductVQ()
    plug_in(nn.Sequential(inside), "vq")
    own = nn.ModuleList([built(), quantizers.VectorQuantizer(WIDTH, CODES)])
    plug_in(own, "vq")
    assert plug_in(two(), "vq", at=["top.vq", "bottom.vq"])


def test_the_parts_of_a_frozen_model_are_those_around_the_quantizer() -> None:
    """A codebook of moving averages does not learn in a model that trains."""
    model = nn.ModuleDict({"inner": built(), "head": nn.Linear(2, 2)})
    model["inner"].requires_grad_(False)
    with pytest.warns(UserWarning, match="the model is frozen at 'inner.vq'"):
        plug_in(model, "simvq")
    assert model["inner"].vq.quantizer.frozen
    averages = built()
    averages.vq.requires_grad_(False)
    plug_in(averages, "ema_vq")
    assert not averages.vq.quantizer.frozen
    trained = plug_in(built(), "simvq", trainable=False)
    assert not any(parameter.requires_grad for parameter in trained.vq.parameters())
    assert all(parameter.requires_grad for parameter in trained.encoder.parameters())


def test_a_preset_is_not_what_a_model_needs() -> None:
    """Its sizes are those of its paper; the model's are read."""
    with pytest.raises(ValueError, match="quantizer is 'preset:mimi', a preset with sizes of its own"):
        plug_in(built(), "preset:mimi")


class Refusing(Adapter):
    """Knows the class of the tests' model, and supports none of its settings."""

    contract: ClassVar[str] = "refusing"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantizer2",)
    omitted_methods: ClassVar[tuple[str, ...]] = ("get_codebook_entry",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        raise ValueError("VectorQuantizer2 has a setting that is not supported")


def test_a_contract_that_fits_comes_before_one_without_support(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognition, "_CONTRACTS", {"refusing": Refusing, **recognition._CONTRACTS})
    assert plug_in(built(), "vq").vq.contract == "taming"
    with pytest.raises(ValueError, match="a setting that is not supported"):
        plug_in(Model(Sampler()), "vq")


class Child(VectorQuantizer2):
    """Of another name, with a lookup of its own."""

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
        return -super().get_codebook_entry(indices, shape)


class PlainChild(VectorQuantizer2):
    """Of another name, and the same methods."""


def test_a_class_that_derives_from_a_known_one_is_named() -> None:
    """And the methods that it overrides, which a contract would replace."""
    model = Model(Child())
    before = modules(model)
    own = "at 'vq' is Child, which derives from VectorQuantizer2: .*, without its own get_codebook_entry"
    with pytest.raises(ValueError, match=own):
        plug_in(model, "vq")
    assert modules(model) == before
    with pytest.warns(UserWarning, match="Child, which overrides get_codebook_entry; contract"):
        plug_in(model, "vq", at="vq", contract="taming")
    with pytest.raises(ValueError, match=r"pass at='vq', contract='taming'$"):
        plug_in(Model(PlainChild()), "vq")
    plug_in(Model(PlainChild()), "vq", at="vq", contract="taming")


def test_the_check_seeds_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by `torch.manual_seed`, which seeds all devices, nor on the default device, which may be one."""

    def seed(_: int) -> None:
        raise AssertionError("torch.manual_seed would seed all devices")

    model = built()
    monkeypatch.setattr(torch, "manual_seed", seed)
    before = torch.get_rng_state()
    check_contract(model.vq, recognition.contract_named("taming"))
    assert torch.equal(torch.get_rng_state(), before)
