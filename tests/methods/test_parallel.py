"""Quantizers side by side: each sees the same vector, and the value is the mean of theirs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import quantizers
from quantizers import FSQ, ParallelQuantizer, RandomProjectionQuantizer, VectorQuantizer
from tests.cases import normal
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps


@examples(15)
@given(seed=st.integers(0, 999), count=st.integers(1, 4), training=st.booleans())
def test_indices_are_those_of_each_alone_and_the_rest_is_their_mean(seed: int, count: int, training: bool) -> None:
    torch.manual_seed(seed)
    parts = [VectorQuantizer(3, 8, decoder_gradient=True) for _ in range(count)]
    quantizer = ParallelQuantizer(3, parts).double().train(training)
    z, g = normal(seed, 12, 3).requires_grad_(), normal(seed + 1, 12, 3)
    out, alone = quantizer(z), [part(z) for part in parts]
    assert torch.equal(out.indices, torch.stack([each.indices for each in alone], -1))
    assert torch.equal(quantizer.decode(out.indices), out.quantized)
    value = torch.stack([each.quantized for each in alone]).mean(0)
    loss = torch.stack([each.loss for each in alone]).mean()
    inputs = [z, *quantizer.parameters()]
    actual = torch.autograd.grad((out.quantized * g).sum() + out.loss, inputs)
    expected = torch.autograd.grad((value * g).sum() + loss, inputs)
    # A mean of up to four terms, summed in another order, in the value, in the loss and in each gradient.
    for a, b in zip([out.quantized, out.loss, *actual], [value, loss, *expected], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=200 * EPS)


def test_random_projections_give_targets_of_their_own() -> None:
    """By name, each with its own projection and codes; knowing one target tells little of another."""
    torch.manual_seed(0)
    quantizer = quantizers.create("parallel", dim=12, codebook_size=16, num_quantizers=3)
    assert all(isinstance(part, RandomProjectionQuantizer) for part in quantizer.components)
    x = torch.randn(4000, 12)
    targets = quantizer.encode(x)
    assert targets.shape == (4000, 3)
    joint = (
        torch.zeros(16, 16).index_put_((targets[:, 0], targets[:, 1]), torch.ones(4000), accumulate=True) / 4000
    )
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    information = (joint * (joint / apart).where(joint > 0, 1.0).log()).sum()
    entropy = -(joint.sum(1) * joint.sum(1).clamp(min=1e-9).log()).sum()
    assert information < entropy / 2


def test_each_starts_from_all_data() -> None:
    torch.manual_seed(0)
    quantizer = quantizers.create("parallel", dim=5, codebook_size=8, num_quantizers=2)
    x = 30 + torch.randn(500, 5)
    quantizer.initialize_from(x)
    for part in quantizer.components:
        torch.testing.assert_close(part.project_in.mean, x.mean(0))
        torch.testing.assert_close(part.project_in.deviation, x.std(0, correction=0))
    assert all(column.unique().numel() > 4 for column in quantizer.encode(x).T)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="quantizers is empty, expected at least one quantizer"):
        ParallelQuantizer(4, [])
    with pytest.raises(ValueError, match=r"quantizers have \[2, 3\] channels, expected the same number for all"):
        ParallelQuantizer(4, [FSQ(2, [3, 3]), FSQ(3, [3, 3, 3])])
