"""The laws of greedy k-means++."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.clustering.greedy_seeding import greedy_seeds
from quantizers.clustering.seeding import seeds
from quantizers.kernels.nearest.operation import nearest_code


def drawn(x: Tensor, size: int, seed: int = 0) -> Tensor:
    return greedy_seeds(x, size, torch.Generator().manual_seed(seed))


def inertia(x: Tensor, codes: Tensor) -> float:
    return float(nearest_code(x[None], codes[None])[1].double().mean())


CHANNELS = st.sampled_from([2, 300])  # in which the vectors themselves are compared, and a projection of them


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 4), CHANNELS, st.integers(0, 99))
def test_seeds_are_distinct_vectors(count: int, size: int, values: int, channels: int, seed: int) -> None:
    pairs = torch.randint(values, (count, 2), generator=torch.Generator().manual_seed(seed)).float()
    x = pairs.repeat(1, channels // 2)
    found = drawn(x, size, seed)
    distinct = torch.unique(x, dim=0)
    assert len(found) == min(size, len(distinct))
    assert len(torch.unique(found, dim=0)) == len(found)
    assert all((found[:, None] == distinct).all(-1).any(-1))


@example(60, 2, 0)  # sums of squared distances exceed float32
@example(60, 300, 0)
@given(st.integers(-60, 60), CHANNELS, st.integers(0, 99))
def test_the_scale_does_not_matter(exponent: int, channels: int, seed: int) -> None:
    x = torch.randn(200, channels, generator=torch.Generator().manual_seed(seed))
    factor = 2.0**exponent
    assert torch.equal(drawn(factor * x, 10, seed), factor * drawn(x, 10, seed))


@pytest.mark.parametrize("channels", [8, 256])
def test_seeds_are_better_than_those_of_k_means_plus_plus(channels: int) -> None:
    draws = torch.Generator().manual_seed(0)
    width = 10 * (8 / channels) ** 0.5  # so that clusters are as far apart in any number of channels
    x = width * torch.randn(30, channels, generator=draws)[torch.randint(30, (3000,), generator=draws)]
    x = x + torch.randn(3000, channels, generator=draws)
    greedy = [inertia(x, drawn(x, 30, seed)) for seed in range(10)]
    plain = [inertia(x, seeds(x, 30, torch.Generator().manual_seed(seed), None)) for seed in range(10)]
    assert sum(greedy) < sum(plain)
