"""How many codes a batch uses, as a tensor."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from quantizers import create
from quantizers.adapters.bases.used_codes import used_codes, used_percentage


@given(st.lists(st.lists(st.integers(-1, 5), min_size=3, max_size=3), max_size=40))
def test_used_codes_are_the_different_indices_of_each_column(rows: list[list[int]]) -> None:
    indices = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)
    expected = [len({row[column] for row in rows} - {-1}) for column in range(3)]
    assert used_codes(indices).tolist() == expected


def test_the_percentage_is_the_mean_over_codebooks_of_any_size() -> None:
    quantizer = create("residual", dim=4, quantizer="vq", num_quantizers=2, codebook_size=[4, 10])
    indices = torch.tensor([[[0, 3], [0, 4]], [[1, 3], [-1, -1]]])
    assert used_percentage(quantizer, indices).item() == 100 * (2 / 4 + 2 / 10) / 2
    single = create("vq", dim=4, codebook_size=8)
    assert used_percentage(single, torch.tensor([[0, 5], [5, -1]])).item() == 25
