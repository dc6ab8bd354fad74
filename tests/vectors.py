"""Strategies for vectors: any float32, and the few values that make ties, denormals and far clusters."""

import torch
from hypothesis import strategies as st
from torch import Tensor

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
few = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-8, 3e-8, 1e30, 1e-40])


@st.composite
def vectors(draw: st.DrawFn, dim: int, largest: int, values: st.SearchStrategy[float]) -> Tensor:
    """float32 [n, dim] with 1 ≤ n ≤ largest."""
    count = draw(st.integers(1, largest))
    flat = draw(st.lists(values, min_size=count * dim, max_size=count * dim))
    return torch.tensor(flat, dtype=torch.float32).view(count, dim)
