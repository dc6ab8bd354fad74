"""Product quantization as a law: each quantizer on its own channels, and one call where they share a codebook."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import quantizers
from quantizers import EMAVectorQuantizer, GroupedQuantizer, Quantizer, ResidualQuantizer, VectorQuantizer
from quantizers.kernels.common.dispatch import use_implementation
from tests.cases import normal, state_of
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)
few = examples(10)
WIDTHS = (2, 1, 3)


def grouped(seed: int = 0) -> GroupedQuantizer:
    """Of groups that differ in kind, width and size, in float64."""
    torch.manual_seed(seed)
    two, one, three = WIDTHS
    groups = [
        VectorQuantizer(two, 8),
        EMAVectorQuantizer(one, 5),
        quantizers.create("fsq", dim=three, levels=(3, 4, 5)),
    ]
    return GroupedQuantizer(sum(WIDTHS), groups).double()


def calls(quantizer: Quantizer, x: Tensor) -> int:
    """How often a forward asks for the nearest code."""
    with use_implementation() as ran:
        quantizer(x)
    return sum(count for (operation, _), count in ran.items() if operation == "nearest_lookup")


# Each on its own channels


@few
@given(seed=seeds, n=st.integers(1, 20))
def test_each_quantizer_has_its_channels(seed: int, n: int) -> None:
    quantizer, z = grouped(seed), normal(seed, n, sum(WIDTHS))
    alone = copy.deepcopy(quantizer)
    out = quantizer(z)
    own = [part(slice_) for part, slice_ in zip(alone.components, torch.split(z, WIDTHS, -1), strict=True)]
    assert torch.equal(out.quantized, torch.cat([o.quantized for o in own], -1))
    assert torch.equal(out.indices, torch.stack([o.indices for o in own], -1))
    weighted = sum(width * o.loss for width, o in zip(WIDTHS, own, strict=True)) / sum(WIDTHS)
    torch.testing.assert_close(out.loss, weighted, rtol=8 * EPS, atol=0)
    for name, value in state_of(alone).items():
        assert torch.equal(state_of(quantizer)[name], value), name


@few
@given(seed=seeds, n=st.integers(1, 20), weight=st.sampled_from([0.0, 0.25]))
def test_the_loss_and_gradient_are_those_of_the_whole_vector(seed: int, n: int, weight: float) -> None:
    """commitment · mean (z − e)² + mean (z − e)² over all channels, whatever the groups."""
    torch.manual_seed(seed)
    groups = [VectorQuantizer(width, 8, commitment_weight=weight) for width in WIDTHS]
    quantizer, z = GroupedQuantizer(6, groups).double(), normal(seed, n, 6).requires_grad_()
    out = quantizer(z)
    error = (z - out.quantized).detach()
    torch.testing.assert_close(out.loss, (1 + weight) * error.square().mean(), rtol=32 * EPS, atol=0)
    (found,) = torch.autograd.grad(out.loss, z)
    torch.testing.assert_close(found, weight * 2 * error / (n * 6), rtol=16 * EPS, atol=EPS)


# Shared codebooks


@few
@given(seed=seeds, n=st.integers(1, 20), name=st.sampled_from(["vq", "ema_vq", "residual"]))
def test_a_shared_codebook_is_equal_codebooks(seed: int, n: int, name: str) -> None:
    torch.manual_seed(seed)
    shared = quantizers.create(
        "grouped", dim=6, quantizer=name, codebook_size=8, num_groups=3, shared=True
    ).double()
    assert isinstance(shared, GroupedQuantizer)
    apart = GroupedQuantizer(6, [copy.deepcopy(shared.components[0]) for _ in range(3)])
    z, g = normal(seed, n, 6), normal(seed + 1, n, 6)
    found, expected = [], []
    for quantizer, results in ((shared, found), (apart, expected)):
        x = z.clone().requires_grad_()
        indices = quantizer.encode(z)  # before the averages move
        results += [indices, quantizer.decode(indices)]
        out = quantizer(x)
        results += [
            out.quantized,
            out.indices,
            out.loss,
            *torch.autograd.grad(out.loss + (out.quantized * g).sum(), x),
        ]
    # A mean over 3n vectors here, three means over n there.
    torch.testing.assert_close(found, expected, rtol=64 * EPS, atol=4 * EPS)


def test_a_shared_codebook_is_searched_in_one_call() -> None:
    def built(shared: bool) -> Quantizer:
        return quantizers.create("grouped", dim=6, codebook_size=8, num_groups=3, shared=shared)

    assert calls(built(True), torch.randn(5, 6)) == 1
    assert calls(built(False), torch.randn(5, 6)) == 3
    assert len([name for name in built(True).state_dict() if "embedding" in name]) == 1


@few
@given(seed=seeds, n=st.integers(1, 20))
def test_shared_averages_are_those_of_all_groups_together(seed: int, n: int) -> None:
    torch.manual_seed(seed)
    shared = quantizers.create("grouped", dim=6, quantizer="ema_vq", codebook_size=8, num_groups=3, shared=True)
    alone, z = copy.deepcopy(shared.quantizers[0]), normal(seed, n, 6, dtype=torch.float32)  # type: ignore[index]
    shared.double()(z.double())
    alone.double()(z.double().reshape(-1, 2))
    for name, value in state_of(alone).items():
        # The same vectors, summed in another order: at most 3n terms.
        torch.testing.assert_close(
            state_of(shared)[f"quantizers.0.{name}"], value, rtol=6 * n * EPS, atol=6 * n * EPS
        )


# Inside each other


@few
@given(seed=seeds)
def test_groups_of_residuals_and_residuals_of_groups(seed: int) -> None:
    torch.manual_seed(seed)
    x, mask = normal(seed, 4, 5, 4), torch.rand(4, 5) > 0.3
    groups = quantizers.create("grouped", dim=4, quantizer="residual", num_quantizers=3, codebook_size=8)
    stages = quantizers.create(
        "residual", dim=4, quantizer="grouped", num_quantizers=3, num_groups=2, codebook_size=8
    )
    assert isinstance(groups, GroupedQuantizer)
    assert isinstance(stages, ResidualQuantizer)
    for quantizer in (groups.double(), stages.double()):
        out = quantizer(x, mask)
        assert out.indices.shape == (4, 5, 6)
        assert torch.equal(quantizer.decode(out.indices), out.quantized)
        assert torch.equal(quantizer.encode(x, mask), out.indices)
    # Groups of residuals: the first group's stages first. Residuals of groups: the first stage's groups first.
    first = groups.components[0].encode(x[..., :2], mask)
    assert torch.equal(groups.encode(x, mask)[..., :3], first)
    assert torch.equal(stages.encode(x, mask)[..., :2], stages.components[0].encode(x, mask))
    # The same codes in the same places are the same quantizer: PQ and residuals of codes act channel by channel.
    for place, stage in enumerate(stages.components):
        for half in range(2):
            stage.components[half].set_codebook(groups.components[half].components[place].codebook)  # type: ignore[attr-defined]
    by_group, by_stage = groups(x, mask), stages(x, mask)
    assert torch.equal(by_group.quantized, by_stage.quantized)
    assert torch.equal(by_group.indices.unflatten(-1, (2, 3)).mT, by_stage.indices.unflatten(-1, (3, 2)))
    torch.testing.assert_close(by_group.loss, by_stage.loss, rtol=64 * EPS, atol=0)


def test_dropout_inside_groups_keeps_codes_and_values_together() -> None:
    quantizer = quantizers.create(
        "grouped", dim=4, quantizer="residual", num_quantizers=3, codebook_size=8, dropout=1.0, shared=True
    )
    out = quantizer(torch.randn(50, 2, 4))
    assert (out.indices == -1).any()
    assert torch.equal(quantizer.decode(out.indices), out.quantized)


# What does not fit


def test_what_leaves_float32_in_one_group_has_no_code_in_any() -> None:
    """As in forward, so in encode."""
    groups = [VectorQuantizer(2, 8, code_dim=3), VectorQuantizer(2, 8)]
    shared = [VectorQuantizer(2, 8, code_dim=3)] * 2
    x = torch.tensor([[3e38, 3e38, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    for parts in (groups, shared):
        nn.init.constant_(parts[0].project_in.weight, 1.0)  # type: ignore[arg-type]
        quantizer = GroupedQuantizer(4, parts)
        out = quantizer(x)
        assert torch.equal(out.indices, quantizer.encode(x))
        assert (out.indices[0] == -1).all()
        assert (out.indices[1] >= 0).all()
        assert out.quantized[0].isnan().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_groups": 3}, "dim is 4, expected a multiple of num_groups, 3"),
        ({"num_groups": 0}, "num_groups is 0"),
        ({"quantizer": "multiscale"}, "MultiScaleQuantizer, which quantizes maps"),
        ({"quantizer": "none"}, "Identity, which has no codes"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantizers.create("grouped", dim=4, codebook_size=8, **options)


def test_parts_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="groups is empty"):
        GroupedQuantizer(4, [])
    with pytest.raises(ValueError, match="a component has channel_dim=1, expected −1"):
        GroupedQuantizer(4, [VectorQuantizer(4, 8, channel_dim=1)])
    with pytest.raises(TypeError, match=r"groups\[0\] is Linear.*expected a Quantizer"):
        GroupedQuantizer(4, [nn.Linear(4, 4)])  # type: ignore[list-item]


def test_each_group_knows_its_own_indices() -> None:
    quantizer = grouped()
    assert quantizer.decode(torch.tensor([7, 4, 59])).shape == (6,)
    for bad, size in (([8, 0, 0], 8), ([0, 5, 0], 5), ([0, 0, 60], 60)):
        with pytest.raises(IndexError, match=f"expected 0 to {size - 1}"):
            quantizer.decode(torch.tensor([bad]))
    with pytest.raises(ValueError, match=r"indices have 4 columns on the last axis, expected one of \[1, 2, 3\]"):
        quantizer.decode(torch.zeros(5, 4, dtype=torch.int64))


def test_groups_that_are_fewer_than_the_channels_are_projected_to() -> None:
    quantizer, x = (
        GroupedQuantizer(5, [VectorQuantizer(2, 8), VectorQuantizer(1, 8)], channel_dim=1),
        torch.randn(2, 5, 7),
    )
    out = quantizer(x)
    assert out.quantized.shape == x.shape
    assert out.indices.shape == (2, 7, 2)
    assert torch.equal(quantizer.decode(out.indices), out.quantized)  # the same product of the same rows
