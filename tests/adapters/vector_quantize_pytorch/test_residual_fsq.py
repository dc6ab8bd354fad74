"""ResidualFSQ of vector-quantize-pytorch, whose stages are kept as stages of symmetric FSQ."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from quantizers import configuration, plug_in, rebuild, take_codebook
from tests.adapters.vector_quantize_pytorch.package import EPS, WIDTH, made, normal


@pytest.mark.parametrize("options", [{}, {"is_channel_first": True}, {"dim": 3}, {"levels": [2, 8, 5]}], ids=str)
def test_kept_stages_give_what_the_original_gave(options: dict[str, Any]) -> None:
    """Indices are the same but for vectors between two levels, of which there are few; values up to rounding."""
    original = made("ResidualFSQ", **options).eval()
    adapter: Any = plug_in(copy.deepcopy(original), "fsq", keep_codebook=True).eval()
    taken = take_codebook(nn.Sequential(original))  # the original's values are rounded three times
    torch.testing.assert_close(taken, original.codebooks, rtol=0, atol=2 * EPS)
    x = 2 * normal(4, 100, options.get("dim", WIDTH))
    x = x.movedim(-1, 1) if options.get("is_channel_first") else x
    with torch.no_grad():
        (new, found), (reference, indices) = adapter(x), original(x)
    assert (new.shape, found.shape) == (reference.shape, indices.shape)
    axis = 1 if options.get("is_channel_first") else -1
    same = (found == indices).all(axis)
    assert same.float().mean() > 0.98
    scale = 2.0  # what the codes add up to at most
    if original.has_projections:
        rows = original.project_out.weight.abs().sum(1) + original.project_out.bias.abs()
        scale = 2 * rows.max().item()
    rounding = 12 * EPS  # 3 stages of three roundings, and a product of 3 terms
    assert ((new - reference).abs().amax(axis) <= rounding * scale)[same].all()
    last = indices.movedim(axis, -1)  # with channels first, the original's own `return_all_codes` raises
    decoded = adapter.get_output_from_indices(last) - original.get_output_from_indices(last)
    assert (decoded.abs() <= rounding * scale).all()
    codes, expected = adapter.get_codes_from_indices(last), original.get_codes_from_indices(last)
    assert codes.shape == expected.shape
    assert ((codes - expected).abs() <= rounding).all()


def test_a_kept_quantizer_is_rebuilt_from_json() -> None:
    quantizer = plug_in(made("ResidualFSQ"), "fsq", keep_codebook=True).quantizer.eval()
    again = rebuild(configuration(quantizer)).eval()
    again.load_state_dict(quantizer.state_dict())
    x = normal(2, 60, WIDTH)
    assert torch.equal(again(x).quantized, quantizer(x).quantized)


def test_dropout_of_stages_is_kept() -> None:
    kept = plug_in(made("ResidualFSQ", quantize_dropout=True), "fsq", keep_codebook=True).quantizer
    assert (kept.dropout, kept.dropout_by) == (1.0, "batch")
