"""Vectors that are hard for a search, as hypothesis draws them."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.triton.interpreter import device

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
few = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-8, 3e-8, 1e30, 1e-40])
clustered = st.sampled_from([1000.0, 1000.0625, -3e38, 3e38, 1e-45, -1e-38])


@st.composite
def vectors(draw: st.DrawFn, dim: int, largest: int, values: st.SearchStrategy[float]) -> Tensor:
    """Vectors [N, dim] with 1 ≤ N ≤ largest, float32, on the device that kernels run on."""
    count = draw(st.integers(1, largest))
    flat = draw(st.lists(values, min_size=count * dim, max_size=count * dim))
    return torch.tensor(flat, dtype=torch.float32, device=device()).view(count, dim)
