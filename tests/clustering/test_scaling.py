"""Values are divided by the power of two next to their largest magnitude, over the whole range of a dtype."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from quantizers.clustering.scaling import scaled

singles = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=4)
doubles = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4)


def check(values: list[float], dtype: torch.dtype) -> None:
    """A quotient is exact, or less than the smallest normal number and then off by at most one step of these."""
    x = torch.tensor(values, dtype=dtype)
    _, exponent = math.frexp(float(x.abs().max()))
    expected = torch.tensor([math.ldexp(value, -exponent) for value in x.tolist()], dtype=torch.float64)
    found = scaled(x)
    assert found.dtype == dtype
    tiny, step = torch.finfo(dtype).tiny, torch.finfo(dtype).tiny * torch.finfo(dtype).eps
    assert ((found.double() - expected).abs() <= torch.where(expected.abs() < tiny, step, 0.0)).all()


@given(values=singles)
@example(values=[2.0**-149, 0.0])
@example(values=[-1e-40, 3e-41])
@example(values=[2.0**127, 2.0**-149])
def test_single_precision(values: list[float]) -> None:
    check(values, torch.float32)


@given(values=doubles)
@example(values=[2.0**-1074, 0.0])
@example(values=[1e-310, -3e-311])
@example(values=[1e-300, 1e-301])
@example(values=[-1e300, 1e299])
@example(values=[2.0**1023, 2.0**-1074])
def test_double_precision(values: list[float]) -> None:
    check(values, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_stays(dtype: torch.dtype) -> None:
    assert torch.equal(scaled(torch.zeros(2, 3, dtype=dtype)), torch.zeros(2, 3, dtype=dtype))
