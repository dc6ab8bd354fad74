"""How much of a codebook a batch uses, as a tensor."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers import create, metrics
from quantizers.adapters.bases.usage import perplexity, used_codes, utilization

ROWS = st.lists(st.lists(st.integers(-1, 5), min_size=3, max_size=3), max_size=40)


def tensor(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)


@given(ROWS)
def test_used_codes_are_the_different_indices_of_each_column(rows: list[list[int]]) -> None:
    expected = [len({row[column] for row in rows} - {-1}) for column in range(3)]
    assert used_codes(tensor(rows)).tolist() == expected


@given(ROWS)
def test_the_metrics_of_counts_are_the_same(rows: list[list[int]]) -> None:
    indices, sizes = tensor(rows), [6, 9, 20]
    quantizer = create("residual", dim=4, quantizer="vq", num_quantizers=3, codebook_size=sizes)
    counts = [metrics.code_counts(column, size) for column, size in zip(indices.unbind(-1), sizes, strict=True)]
    mean = sum(map(metrics.utilization, counts)) / 3
    assert utilization(quantizer, indices).item() == pytest.approx(mean, rel=1e-6)
    if len(rows) and (indices >= 0).any(0).all():
        total = sum(map(metrics.perplexity, counts))
        assert perplexity(indices).item() == pytest.approx(total, rel=1e-5)


def test_a_quantizer_of_one_codebook_has_one_column() -> None:
    assert utilization(create("vq", dim=4, codebook_size=8), torch.tensor([[0, 5], [5, -1]])).item() == 0.25
