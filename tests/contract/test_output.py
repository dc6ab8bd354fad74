"""What comes back: its form, that decode gives the same, and where the channels may stand."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantizers import QuantizerOutput
from tests.cases import (
    Case,
    assert_same_state,
    batch,
    cases_where,
    every_case,
    index_shape,
    modes,
    rounding_tolerance,
    seeded,
    state_of,
)
from tests.effort import for_each_case

pytestmark = pytest.mark.usefixtures("implementation")

FLOAT_TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


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
    assert (indices.shape, indices.dtype) == (index_shape(case.build(), 2, 3), torch.int64)
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
@for_each_case
@given(seed=st.integers(0, 99), scale=st.sampled_from([0.01, 1.0, 30.0]))
def test_decode_equals_quantized_in_training(case: Case, seed: int, scale: float) -> None:
    quantizer = case.build()
    for step in range(2):
        frozen = copy.deepcopy(quantizer)  # the codebook that the forward uses, before its own step
        quantized, indices, _ = quantizer(scale * batch(40, seed=seed + step))
        gap = (frozen.decode(indices) - quantized).abs().max()
        assert gap <= rounding_tolerance(frozen)


@cases_where(lambda case: case.trains_on_codes)
def test_decode_after_a_forward_in_training_gives_the_codes_as_they_are_then(case: Case) -> None:
    """Those of `quantized` still, unless the quantizer observes."""
    quantizer = case.build()
    quantized, indices, _ = quantizer(batch(40))
    gap = (quantizer.decode(indices) - quantized).abs().max()
    assert (gap > rounding_tolerance(quantizer)) == quantizer.observes


@cases_where(lambda case: case.has_codes)
@for_each_case
@given(seed=st.integers(0, 99))
def test_decode_equals_quantized_in_evaluation(case: Case, seed: int) -> None:
    quantizer = case.build()
    quantizer(batch(40, seed=seed))
    quantizer.eval()
    x = batch(40, seed=seed + 1)
    quantized, indices, _ = quantizer(x)
    assert (quantizer.decode(indices) - quantized).abs().max() <= rounding_tolerance(quantizer)
    assert torch.equal(quantizer.encode(x), indices)
    assert torch.equal(quantizer.train().encode(x), indices)
    if not case.multiplies and not quantizer.composed:
        assert (quantizer.codebook[indices] - quantized).abs().max() <= rounding_tolerance(quantizer)


@cases_where(lambda case: case.has_codes)
def test_codebook_lists_every_code(case: Case) -> None:
    quantizer = case.build()
    *books, size, dim = quantizer.codebook.shape
    assert books == ([quantizer.num_codebooks] if quantizer.composed else [])
    assert size == quantizer.codebook_size
    assert quantizer.composed or dim == quantizer.code_dim


# 3: leading axes are free


@every_case
@for_each_case
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
    assert out.indices.shape == index_shape(quantizer, 0, 7)
    assert out.loss == 0
    assert_same_state(before, state_of(quantizer))
    (out.quantized.sum() + out.loss).backward()
    assert x.grad is not None


# The memory format of x


@every_case
@modes
def test_what_comes_back_has_the_memory_format_of_x(case: Case, training: bool) -> None:
    """Contiguous for contiguous x, on any channel axis; with channels last in memory for x that has them there."""
    quantizer = case.build(channel_dim=1).train(training)
    for shape in ((2, 3), (2, 3, 5), (2, 3, 2, 5)):
        last = batch(*shape).to(torch.bfloat16)
        for x, contiguous in ((last.movedim(-1, 1), False), (last.movedim(-1, 1).contiguous(), True)):
            quantized, indices, _ = quantizer(x)
            assert quantized.shape == x.shape
            assert quantized.is_contiguous() == contiguous
            assert contiguous or quantized.movedim(1, -1).is_contiguous()
            assert indices.is_contiguous()
            assert quantizer.encode(x).is_contiguous()
            if case.has_codes:
                assert quantizer.decode(indices).is_contiguous()
    assert case.build(channel_dim=-1).train(training)(last).quantized.is_contiguous()
