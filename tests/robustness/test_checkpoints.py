"""A checkpoint holds all of it: training goes on from one, at any step, bit for bit as if nothing had happened."""

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from quantizers import Quantizer, SimVQ, VectorQuantizer
from tests.cases import Case, assert_same_state, batch, cases_where, every_case, indices_for, seeded, state_of
from tests.effort import examples
from tests.robustness.training import Training

pytestmark = pytest.mark.methods

State = dict[str, Any]


def through_torch(state: State) -> State:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: State = torch.load(file, weights_only=True)
    return loaded


# How a checkpoint may travel from one process to the next.
journeys = st.sampled_from([copy.deepcopy, through_torch])


def trained(case: Case, steps: int = 2) -> Quantizer:
    """A quantizer whose state is no longer that of its construction."""
    training = Training(case.build())
    for _ in range(steps):
        training.step()
    return training.quantizer


def assert_continue_alike(a: Quantizer, b: Quantizer) -> None:
    """The same output in evaluation, and in training; after that the same state, that which is not saved too."""
    for training in (False, True):
        expected, actual = (seeded(q.train(training), batch(30, seed=9)) for q in (a, b))
        assert all(torch.equal(x, y) for x, y in zip(expected, actual, strict=True))
    assert_same_state(state_of(a), state_of(b))


@every_case
@examples(6)  # each trains for up to a dozen steps
@given(before=st.integers(0, 4), after=st.integers(1, 3), travel=journeys)
def test_training_goes_on_from_a_checkpoint_of_any_step(
    case: Case, before: int, after: int, travel: Callable[[State], State]
) -> None:
    torch.manual_seed(0)
    uninterrupted = Training(case.build())
    for _ in range(before):
        uninterrupted.step()
    checkpoint = travel(uninterrupted.state_dict())
    expected = [uninterrupted.step() for _ in range(after)]

    torch.manual_seed(1)  # another process: other first codes, other draws
    restored = Training(case.build())
    restored.load_state_dict(checkpoint)
    for outputs in expected:
        assert all(torch.equal(a, b) for a, b in zip(outputs, restored.step(), strict=True))
    assert_same_state(uninterrupted.everything(), restored.everything())


@every_case
def test_safetensors_keeps_names_dtypes_and_bits(case: Case, tmp_path: Path) -> None:
    quantizer = trained(case)
    save_file(quantizer.state_dict(), tmp_path / "quantizer.safetensors")
    loaded = load_file(tmp_path / "quantizer.safetensors")
    assert {name: value.dtype for name, value in loaded.items()} == {
        name: value.dtype for name, value in quantizer.state_dict().items()
    }
    assert_same_state(dict(quantizer.state_dict()), loaded)
    fresh = case.build()
    fresh.load_state_dict(loaded, strict=True)
    assert_continue_alike(quantizer, fresh)


@every_case
def test_evaluation_from_a_checkpoint_is_that_of_the_module(case: Case) -> None:
    """`_restore_unsaved` writes what is not saved: whole at once, not only after a step."""
    quantizer = trained(case).eval()
    fresh = case.build().eval()
    fresh.load_state_dict(through_torch(quantizer.state_dict()), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(fresh(batch(30)), quantizer(batch(30)), strict=True))
    if case.has_codes:
        indices = indices_for(quantizer, torch.arange(-1, quantizer.codebook_size))
        assert torch.equal(fresh.decode(indices), quantizer.decode(indices))


# Old names


class RenamedLater(VectorQuantizer):
    """A user's quantizer whose codes have had two names before."""

    renamed: ClassVar = {"codes": "embedding", "table.weight": "embedding"}


class Model(nn.Module):
    """The quantizer as a part of a part."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.bottleneck = nn.ModuleDict({"quantizer": quantizer})


old_names = pytest.mark.parametrize(
    ("quantizer_class", "old"),
    [(VectorQuantizer, "embedding.weight"), (RenamedLater, "codes"), (RenamedLater, "table.weight")],
)


@old_names
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("prefix", ["", "bottleneck.quantizer."], ids=["alone", "in a model"])
def test_old_names_load_under_the_new(
    quantizer_class: type[VectorQuantizer], old: str, assign: bool, prefix: str
) -> None:
    source, target = quantizer_class(4, 6, code_dim=3), quantizer_class(4, 6, code_dim=3)
    whole, receiver = (Model(source), Model(target)) if prefix else (source, target)
    state = whole.state_dict()
    state[prefix + old] = state.pop(prefix + "embedding")
    before = dict(state)
    receiver.load_state_dict(state, strict=True, assign=assign)
    assert_same_state(state_of(whole), state_of(receiver))
    assert target.embedding.requires_grad
    assert list(state) == list(before)  # the caller's dict is the caller's
    assert all(state[name] is before[name] for name in state)


@pytest.mark.parametrize("name", ["codes", "embedding.bias", "bottleneck.embedding.weight"])
def test_unknown_names_are_still_errors(name: str) -> None:
    quantizer = VectorQuantizer(4, 6)
    state = {"embedding.weight": torch.zeros(6, 4), name: torch.zeros(6, 4)}
    with pytest.raises(RuntimeError, match=rf"Unexpected key\(s\) in state_dict: \"{name}\""):
        quantizer.load_state_dict(state, strict=True)


def test_an_old_name_beside_the_new_is_an_error() -> None:
    """Which of the two holds the codes, nobody can tell."""
    state = {"embedding": torch.ones(6, 4), "embedding.weight": torch.zeros(6, 4)}
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: \"embedding.weight\""):
        VectorQuantizer(4, 6).load_state_dict(state, strict=True)


def test_a_missing_codebook_is_still_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"embedding\""):
        VectorQuantizer(4, 6).load_state_dict({}, strict=True)


@pytest.mark.parametrize(("source", "target"), [("vq", "rotation_vq"), ("rotation_vq", "vq")])
def test_vq_and_rotation_vq_read_each_others_checkpoints(source: str, target: str) -> None:
    """They differ in the gradient alone, so an encoder may change it on the way."""
    quantizer, other = trained(Case(source)), Case(target).build()
    other.load_state_dict(quantizer.state_dict(), strict=True)
    actual, expected = other(batch(30)), quantizer(batch(30))
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


# The meta device: a module without memory, for models that are larger than one host


def on_meta(case: Case) -> Quantizer:
    with torch.device("meta"):
        quantizer = case.build()
    assert all(buffer.is_meta for buffer in quantizer.buffers())
    return quantizer


def assert_works(quantizer: Quantizer, case: Case) -> None:
    quantizer.eval()
    quantized, indices, loss = quantizer(batch(30))
    assert all(tensor.isfinite().all() for tensor in [quantized, loss, *state_of(quantizer).values()])
    assert torch.equal(quantizer.encode(batch(30)), indices)
    if case.has_codes:
        assert torch.equal(quantizer.decode(indices), quantized)


@every_case
def test_memory_that_comes_late_is_filled_by_reset_parameters(case: Case) -> None:
    quantizer = on_meta(case).to_empty(device="cpu")
    for module in quantizer.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert_works(quantizer, case)
    quantizer.train()(batch(30))
    assert_works(quantizer, case)


def draws_alone(case: Case) -> bool:
    parts = [module for module in case.sample.children() if hasattr(module, "reset_parameters")]
    return not (case.multiplies or parts or case.sample.composed or isinstance(case.sample, SimVQ))


@cases_where(draws_alone)
def test_reset_parameters_draws_what_construction_draws(case: Case) -> None:
    """Where the quantizer alone draws, without parts that draw before it."""
    torch.manual_seed(3)
    expected = case.build()
    quantizer = on_meta(case).to_empty(device="cpu")
    torch.manual_seed(3)
    if hasattr(quantizer, "reset_parameters"):  # Identity has nothing to reset
        quantizer.reset_parameters()
    assert_same_state(state_of(expected), state_of(quantizer))


@every_case
@pytest.mark.parametrize("assign", [False, True], ids=["to_empty", "assign"])
def test_memory_that_comes_late_is_filled_by_a_checkpoint(case: Case, assign: bool) -> None:
    """Also buffers that no checkpoint holds: nothing calls `reset_parameters` there."""
    source = trained(case)
    quantizer = on_meta(case)
    if not assign:
        quantizer.to_empty(device="cpu")
    quantizer.load_state_dict(copy.deepcopy(source.state_dict()), strict=True, assign=assign)
    assert not any(tensor.is_meta for tensor in state_of(quantizer).values())
    assert_works(quantizer, case)
    assert_continue_alike(source, quantizer)


@every_case
def test_a_part_of_a_model_takes_its_memory_from_a_checkpoint(case: Case) -> None:
    source = nn.ModuleDict({"quantizer": trained(case)})
    model = nn.ModuleDict({"quantizer": on_meta(case)})
    model.load_state_dict(copy.deepcopy(source.state_dict()), strict=True, assign=True)
    assert_continue_alike(source["quantizer"], model["quantizer"])


@cases_where(lambda case: any(parameter.requires_grad for parameter in case.build().parameters()))
def test_what_was_assigned_still_learns(case: Case) -> None:
    source, quantizer = trained(case), on_meta(case)
    quantizer.load_state_dict(copy.deepcopy(source.state_dict()), strict=True, assign=True)
    source.zero_grad()
    for module in (source, quantizer):
        out = seeded(module, batch(30))
        (out.quantized.square().sum() + out.loss).backward()
    learned = dict(quantizer.named_parameters())
    for name, parameter in source.named_parameters():
        assert parameter.requires_grad == learned[name].requires_grad
        assert (parameter.grad is None) == (learned[name].grad is None)
        assert parameter.grad is None or torch.equal(parameter.grad, learned[name].grad)
