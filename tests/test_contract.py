"""The contract that every registered quantizer keeps, point by point."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from quantizers import Quantizer, QuantizerOutput
from tests.cases import DIM, SIZE, Case, assert_same_state, cases_where, every_case, seeded, state_of

FLOAT_TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def batch(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed)).to(dtype)


def projection_tolerance(quantizer: Quantizer, quantized: Tensor) -> float:
    """Two orders of summation of the projection's code_dim + 1 terms differ by at most 2(n)u Σ|terms|."""
    if quantizer.dim == quantizer.code_dim:
        return 0.0
    weight = quantizer.project_out.weight
    largest_code = quantizer.codebook.detach().abs().max()
    terms = weight.detach().abs().sum(1).max() * largest_code + quantizer.project_out.bias.detach().abs().max()
    return float(2 * (quantizer.code_dim + 1) * torch.finfo(quantized.dtype).eps * terms)


# 1: one output


@every_case
@modes
@pytest.mark.parametrize("dtype", FLOAT_TYPES, ids=str)
def test_output_has_one_form(case: Case, training: bool, dtype: torch.dtype) -> None:
    x = batch(2, 3, dtype=dtype)
    out = case.build().train(training)(x)
    quantized, indices, loss = out
    assert isinstance(out, QuantizerOutput)
    assert (quantized.shape, quantized.dtype, quantized.device) == (x.shape, dtype, x.device)
    assert (indices.shape, indices.dtype) == ((2, 3), torch.int64)
    assert loss.shape == ()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@every_case
@modes
def test_output_is_fresh(case: Case, training: bool) -> None:
    """Writing to what came back changes neither the input nor the state."""
    quantizer = case.build().train(training)
    x = batch(5)
    before = x.clone()
    out = quantizer(x)
    state = state_of(quantizer)
    for tensor in out:
        tensor.detach().zero_()
    assert torch.equal(x, before)
    assert_same_state(state, state_of(quantizer))


# 2: decode(indices) == quantized


@cases_where(lambda case: case.trains_on_codes)
@given(seed=st.integers(0, 99), scale=st.sampled_from([0.01, 1.0, 30.0]))
def test_decode_equals_quantized_in_training(case: Case, seed: int, scale: float) -> None:
    quantizer = case.build()
    for step in range(2):
        frozen = copy.deepcopy(quantizer)  # the codebook that the forward uses, before its own step
        quantized, indices, _ = quantizer(scale * batch(40, seed=seed + step))
        gap = (frozen.decode(indices) - quantized).abs().max()
        assert gap <= projection_tolerance(frozen, quantized)


@cases_where(lambda case: case.has_codes)
@given(seed=st.integers(0, 99))
def test_decode_equals_quantized_in_evaluation(case: Case, seed: int) -> None:
    quantizer = case.build()
    quantizer(batch(40, seed=seed))
    quantizer.eval()
    x = batch(40, seed=seed + 1)
    quantized, indices, _ = quantizer(x)
    assert (quantizer.decode(indices) - quantized).abs().max() <= projection_tolerance(quantizer, quantized)
    assert torch.equal(quantizer.encode(x), indices)
    assert torch.equal(quantizer.train().encode(x), indices)
    if not case.projects:
        assert torch.equal(quantizer.codebook[indices], quantized)


@cases_where(lambda case: case.has_codes)
def test_codebook_lists_every_code(case: Case) -> None:
    quantizer = case.build()
    assert quantizer.codebook.shape == (quantizer.codebook_size, quantizer.code_dim)


# 3: leading axes are free


@every_case
@given(shape=st.lists(st.integers(0, 3), max_size=4), channel_dim=st.integers(-5, 4), training=st.booleans())
def test_channels_may_stand_on_any_axis(case: Case, shape: list[int], channel_dim: int, training: bool) -> None:
    axes = len(shape) + 1
    if not -axes <= channel_dim < axes:
        channel_dim = -1
    last = batch(*shape)
    moved = last.movedim(-1, channel_dim)
    torch.manual_seed(0)
    reference = case.build().train(training)
    quantizer = copy.deepcopy(reference)
    quantizer.channel_dim = channel_dim
    expected, actual = seeded(reference, last), seeded(quantizer, moved)
    assert torch.equal(actual.quantized.movedim(channel_dim, -1), expected.quantized)
    assert torch.equal(actual.indices, expected.indices)
    assert torch.equal(actual.loss, expected.loss)
    if case.has_codes:
        decoded = quantizer.decode(actual.indices)
        assert decoded.shape == moved.shape


@every_case
@modes
def test_empty_batch(case: Case, training: bool) -> None:
    quantizer = case.build().train(training)
    before = state_of(quantizer)
    x = batch(0, 7).requires_grad_()
    out = quantizer(x)
    assert out.quantized.shape == x.shape
    assert out.indices.shape == (0, 7)
    assert out.loss == 0
    assert_same_state(before, state_of(quantizer))
    (out.quantized.sum() + out.loss).backward()
    assert x.grad is not None


# 4: the same in training and evaluation; state moves once a step


@every_case
def test_loss_is_the_same_in_both_modes(case: Case) -> None:
    quantizer = case.build()
    x = batch(50)
    evaluated = copy.deepcopy(quantizer).eval()(x)
    trained = quantizer(x)
    assert torch.equal(evaluated.loss, trained.loss)
    if not case.samples:
        assert torch.equal(evaluated.indices, trained.indices)
        assert torch.equal(evaluated.quantized, trained.quantized)


@every_case
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_evaluation_and_encode_change_nothing(case: Case, grad: bool) -> None:
    quantizer = case.build().eval()
    before, generator = state_of(quantizer), torch.get_rng_state()
    with torch.set_grad_enabled(grad):
        quantizer(batch(30))
        quantizer.encode(batch(30))
        quantizer.train().encode(batch(30))
    assert_same_state(before, state_of(quantizer))
    assert torch.equal(generator, torch.get_rng_state())


@every_case
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "non-reentrant"])
def test_checkpointing_moves_state_once_and_keeps_gradients(case: Case, reentrant: bool) -> None:
    plain = case.build()
    checkpointed = copy.deepcopy(plain)
    inputs = [batch(30).requires_grad_(), batch(30).requires_grad_()]

    out = seeded(plain, inputs[0])
    (out.quantized.square().sum() + out.loss).backward()

    torch.manual_seed(7)
    quantized, _, loss = checkpoint(checkpointed, inputs[1], use_reentrant=reentrant)
    (quantized.square().sum() + loss).backward()

    assert_same_state(state_of(plain), state_of(checkpointed))
    assert torch.equal(inputs[0].grad, inputs[1].grad)


@every_case
def test_copies_and_state_dict_continue_alike(case: Case) -> None:
    quantizer = case.build()
    quantizer(batch(30))
    fresh = case.build()
    fresh.load_state_dict(quantizer.state_dict(), strict=True)
    copies = [copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer)), fresh]
    expected = seeded(quantizer, batch(30, seed=1))
    for other in copies:
        actual = seeded(other, batch(30, seed=1))
        assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
        assert_same_state(state_of(quantizer), state_of(other))


# 5: masks


@every_case
@given(data=st.data(), training=st.booleans())
def test_masked_vectors_leave_no_trace(case: Case, data: st.DataObject, training: bool) -> None:
    """A masked batch is the batch of its unmasked vectors, whatever stands under the mask."""
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=1, max_size=20)))
    garbage = data.draw(st.sampled_from([0.0, 1e30, torch.nan, torch.inf]))
    torch.manual_seed(0)
    whole = case.build().train(training)
    part = copy.deepcopy(whole)
    x = batch(len(mask))
    padded = torch.where(mask[:, None], x, garbage).requires_grad_()
    kept = x[mask].requires_grad_()
    masked, dense = seeded(whole, padded, mask), seeded(part, kept)

    assert (masked.indices[~mask] == -1).all()
    assert (masked.quantized[~mask] == 0).all()
    if not (case.samples and training):  # there the draws of the rows before move those of the rows after
        assert torch.equal(masked.indices[mask], dense.indices)
        torch.testing.assert_close(masked.quantized[mask], dense.quantized, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(masked.loss, dense.loss)
        for name, value in state_of(part).items():
            torch.testing.assert_close(state_of(whole)[name], value, rtol=1e-6, atol=1e-7)
    (masked.quantized.square().sum() + masked.loss).backward()
    assert (padded.grad[~mask] == 0).all()
    assert padded.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in whole.parameters())


@every_case
@modes
def test_all_masked(case: Case, training: bool) -> None:
    quantizer = case.build().train(training)
    before = state_of(quantizer)
    x = batch(6).requires_grad_()
    out = quantizer(x, torch.zeros(6, dtype=torch.bool))
    assert (out.indices == -1).all()
    assert (out.quantized == 0).all()
    assert out.loss == 0
    (out.quantized.sum() + out.loss).backward()
    assert (x.grad == 0).all()
    assert_same_state(before, state_of(quantizer))


@cases_where(lambda case: case.has_codes)
def test_decode_of_no_code_is_zero(case: Case) -> None:
    decoded = case.build().decode(torch.tensor([[-1, 3]]))
    assert (decoded[0, 0] == 0).all()
    assert (decoded[0, 1] != 0).any()


# 6: vectors that are not finite


@every_case
@given(data=st.data(), training=st.booleans())
def test_garbage_is_marked_and_touches_nothing(case: Case, data: st.DataObject, training: bool) -> None:
    rows = data.draw(st.integers(1, 12))
    bad = torch.tensor(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    value = data.draw(st.sampled_from([torch.nan, torch.inf, -torch.inf]))
    channel = data.draw(st.integers(0, DIM - 1))
    torch.manual_seed(0)
    quantizer = case.build().train(training)
    masked = copy.deepcopy(quantizer)
    x = batch(rows)
    x[bad, channel] = value
    x.requires_grad_()

    out, expected = seeded(quantizer, x), seeded(masked, x.detach(), ~bad)
    assert torch.equal(out.indices, expected.indices)
    assert out.quantized[bad].isnan().all()
    assert torch.equal(out.quantized[~bad], expected.quantized[~bad])
    assert torch.equal(out.loss, expected.loss)
    assert_same_state(state_of(quantizer), state_of(masked))
    assert all(tensor.isfinite().all() for tensor in state_of(quantizer).values())
    out.loss.backward() if out.loss.requires_grad else None
    assert x.grad is None or x.grad.isfinite().all()


# 7: the nearest code, wherever a vector stands (exactness itself is tested in test_reference.py)


@cases_where(lambda case: case.has_codes)
@settings(max_examples=10)  # each example encodes 64 vectors one by one
@given(seed=st.integers(0, 99), offset=st.sampled_from([0.0, 1.0, 1000.0]))
def test_index_does_not_depend_on_the_batch(case: Case, seed: int, offset: float) -> None:
    if case.projects:
        offset = 0.0  # a projection rounds, in an order that may depend on the batch
    quantizer = case.build().eval()
    x = batch(64, seed=seed) + offset
    together = quantizer.encode(x)
    order = torch.randperm(64)
    assert torch.equal(quantizer.encode(x[order]), together[order])
    alone = torch.stack([quantizer.encode(vector) for vector in x])
    assert torch.equal(alone, together)


# 8: precision


@every_case
@given(seed=st.integers(0, 99), dtype=st.sampled_from([torch.bfloat16, torch.float16]))
def test_half_precision_input_is_its_own_value(case: Case, seed: int, dtype: torch.dtype) -> None:
    """A half input gives what its values give in float32, rounded once at the end."""
    torch.manual_seed(0)
    quantizer = case.build()
    other = copy.deepcopy(quantizer)
    x = batch(30, dtype=dtype, seed=seed)
    half, full = seeded(quantizer, x), seeded(other, x.float())
    assert torch.equal(half.indices, full.indices)
    assert torch.equal(half.quantized, full.quantized.to(dtype))
    assert torch.equal(half.loss, full.loss)
    assert_same_state(state_of(quantizer), state_of(other))


@every_case
@modes
def test_autocast_changes_nothing(case: Case, training: bool) -> None:
    quantizer = case.build().train(training)
    other = copy.deepcopy(quantizer)
    expected = seeded(quantizer, batch(30))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = seeded(other, batch(30))
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    assert_same_state(state_of(quantizer), state_of(other))


@every_case
@pytest.mark.parametrize("cast", [torch.nn.Module.half, torch.nn.Module.bfloat16], ids=["half", "bfloat16"])
def test_state_stays_in_float32(case: Case, cast) -> None:  # type: ignore[no-untyped-def]
    quantizer = case.build()
    before = state_of(quantizer)
    model = cast(torch.nn.Sequential(torch.nn.Linear(DIM, DIM), quantizer))
    assert model[0].weight.dtype != torch.float32
    assert_same_state(before, state_of(quantizer))
    assert model(batch(3).to(model[0].weight.dtype)).quantized.dtype == model[0].weight.dtype


@every_case
def test_float64_all_the_way(case: Case) -> None:
    quantizer = case.build().double()
    assert all(t.dtype == torch.float64 for t in state_of(quantizer).values() if t.is_floating_point())
    out = quantizer.eval()(batch(20).double())
    assert out.loss.dtype == torch.float64
    if case.has_codes:
        assert quantizer.decode(out.indices).dtype == torch.float64
        gap = (quantizer.decode(out.indices) - out.quantized).abs().max()
        assert gap <= projection_tolerance(quantizer, out.quantized)


# 12: errors are sentences


@every_case
def test_wrong_input_is_named(case: Case) -> None:
    quantizer = case.build()
    with pytest.raises(ValueError, match=r"x has 7 channels on axis -1 .*expected dim=4"):
        quantizer(torch.zeros(2, 7))
    with pytest.raises(TypeError, match=r"x has dtype torch.int64, expected a floating dtype"):
        quantizer(torch.zeros(2, DIM, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"mask has shape \(3,\), expected .*\(2,\)"):
        quantizer(torch.zeros(2, DIM), torch.ones(3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"mask has dtype torch.float32, expected torch.bool"):
        quantizer(torch.zeros(2, DIM), torch.ones(2))
    quantizer.channel_dim = 1
    with pytest.raises(ValueError, match=r"no axis channel_dim=1"):
        quantizer(torch.zeros(DIM))


@cases_where(lambda case: case.has_codes)
@given(index=st.one_of(st.integers(-(2**63), -2), st.integers(SIZE * 1000, 2**63 - 1)))
def test_index_out_of_range_is_an_error(case: Case, index: int) -> None:
    if case.build().codebook_size > index >= 0:
        index = case.build().codebook_size
    with pytest.raises(IndexError, match=f"{index}.*expected 0 to"):
        case.build().decode(torch.tensor([0, index]))


@cases_where(lambda case: case.has_codes)
def test_indices_must_be_integers(case: Case) -> None:
    with pytest.raises(TypeError, match=r"indices have dtype torch.float32, expected an integer dtype"):
        case.build().decode(torch.zeros(2))


@every_case
@pytest.mark.parametrize("dim", [0, -1, 2.5, True])
def test_sizes_are_checked(case: Case, dim: object) -> None:
    with pytest.raises(ValueError, match=f"dim is {dim!r}, expected an integer of at least 1"):
        case.build(dim=dim)


def test_identity_says_that_it_has_no_codes() -> None:
    quantizer = Case("none").build()
    assert (quantizer(batch(3)).indices == -1).all()
    with pytest.raises(ValueError, match="has no codebook"):
        _ = quantizer.codebook
    with pytest.raises(ValueError, match="nothing to decode"):
        quantizer.decode(torch.tensor([-1]))
