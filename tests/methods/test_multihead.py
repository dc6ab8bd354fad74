"""Heads with codebooks of their own: what groups of VectorQuantizers compute, in one call."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import quantizers
from quantizers import GroupedQuantizer, MultiHeadVectorQuantizer, VectorQuantizer
from quantizers.kernels.common.dispatch import use_implementation
from tests.cases import Case, halved, normal
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
SIZE = 8
OPTIONS: list[dict[str, Any]] = [
    {},
    {"distance": "cosine", "commitment_weight": 1.0},
    {"gradient": "rotation", "codebook_weight": 0.5},
    {"gradient": halved},
    {"decoder_gradient": True},
]


def pair(seed: int, heads: int, **options: Any) -> tuple[MultiHeadVectorQuantizer, GroupedQuantizer]:
    """Heads of two channels, and groups with the same codes."""
    torch.manual_seed(seed)
    multihead = MultiHeadVectorQuantizer(2 * heads, SIZE, heads, **options).double()
    groups = [VectorQuantizer(2, SIZE, **options).double() for _ in range(heads)]
    for group, codes in zip(groups, multihead.embedding.detach(), strict=True):
        group.set_codebook(codes)
    return multihead, GroupedQuantizer(2 * heads, groups)


@examples(5)
@given(seed=st.integers(0, 2**31), heads=st.integers(1, 4), n=st.integers(0, 20))
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: str(Case("multihead", options)))
def test_heads_are_groups(options: dict[str, Any], seed: int, heads: int, n: int) -> None:
    multihead, grouped = pair(seed, heads, **options)
    z, g = normal(seed, n, 2 * heads), normal(seed + 1, n, 2 * heads)
    mask = torch.rand(n, generator=torch.Generator().manual_seed(seed)) > 0.3
    results: list[list[Tensor]] = []
    for quantizer in (multihead, grouped):
        x = z.clone().requires_grad_()
        out = quantizer(x, mask)
        (out.loss + (out.quantized * g).sum()).backward()
        assert x.grad is not None
        gradients = [parameter.grad.reshape(-1, SIZE, 2) for parameter in quantizer.parameters()]  # type: ignore[union-attr]
        results.append([out.quantized, out.indices, quantizer.codebook, x.grad, torch.cat(gradients), out.loss])
    for place, (found, expected) in enumerate(zip(*results, strict=True)):
        if place < 3:
            assert torch.equal(found, expected)
        else:  # the same sums, divided by the number of channels at once or by two and then by the heads
            torch.testing.assert_close(found, expected, rtol=64 * EPS, atol=16 * EPS)
    assert torch.equal(multihead.encode(z, mask), grouped.encode(z, mask))
    indices = torch.randint(-1, SIZE, (n, heads))
    assert torch.equal(multihead.decode(indices), grouped.decode(indices))


@examples(10)
@given(seed=st.integers(0, 2**31), dim=st.integers(1, 5), n=st.integers(0, 20))
def test_heads_of_one_channel_are_scalar_codebooks(seed: int, dim: int, n: int) -> None:
    """Each channel gets the nearest scalar of its own learned ones: latent quantization."""
    torch.manual_seed(seed)
    quantizer = MultiHeadVectorQuantizer(dim, SIZE, dim).double()
    z = normal(seed, n, dim)
    scalars = quantizer.embedding.detach()[..., 0]
    expected = (z[..., None] - scalars).abs().argmin(-1)
    out = quantizer(z)
    assert torch.equal(out.indices, expected)
    assert torch.equal(out.quantized, scalars.T.gather(0, expected))


def test_all_heads_are_searched_in_one_call() -> None:
    multihead, grouped = pair(0, 4)
    for quantizer, calls in ((multihead, 1), (grouped, 4)):
        with use_implementation() as ran:
            quantizer(torch.randn(5, 8))
        assert sum(count for (operation, _), count in ran.items() if operation == "nearest_lookup") == calls


def test_heads_stand_in_residual_stages() -> None:
    quantizer = quantizers.create("residual", dim=4, quantizer="multihead", num_quantizers=2, codebook_size=SIZE)
    out = quantizer(torch.randn(3, 5, 4))
    assert out.indices.shape == (3, 5, 4)
    assert torch.equal(quantizer.decode(out.indices), out.quantized)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "dim is 4, expected a multiple of num_heads, 3"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"distance": "angle"}, "distance is 'angle'"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantizers.create("multihead", dim=4, codebook_size=SIZE, **options)
