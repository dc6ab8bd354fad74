"""Vectors in code space: what is looked up, what is found, and that the two belong together."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import quantizers
from quantizers import Quantizer, ResidualQuantizer
from quantizers.composite.latents import encode_latents, latent_codes, latents_of
from tests.cases import Case, normal
from tests.effort import examples

DIM = 4
CASES = [
    Case("vq", {"code_dim": 2}),
    Case("vq", {"distance": "cosine"}),
    Case("fsq", {"levels": (5, 3), "codebook_size": None}),
    Case("grouped", {"quantizer": "fsq"}),
    Case("qinco", {"code_dim": 3}),
    Case("multihead"),
    Case("residual", {"code_dim": 3, "distance": "angle"}),
    Case("residual", {"quantizer": "gumbel", "scales": (1.0, 0.5)}),
    Case("residual", {"quantizer": "grouped"}),
    Case("residual_fsq", {"levels": (5, 4, 3), "codebook_size": None, "learn_scales": True}),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
few = examples(10)


def build(case: Case, seed: int, **options: Any) -> Quantizer:
    torch.manual_seed(seed)
    return case.build(**options).double().eval()


def assert_close(a: Tensor, b: Tensor) -> None:
    """Up to the order of sums: of three stages at most, each with two projections of DIM products, below 16."""
    assert max(a.abs().max(), b.abs().max()) < 16
    torch.testing.assert_close(a, b, rtol=0, atol=3 * 2 * 2 * (DIM + 1) * 16 * torch.finfo(a.dtype).eps)


def maps(seed: int) -> Tensor:
    return normal(seed, 2, DIM, 5)


@every_case
@few
@given(seed=st.integers(0, 999))
def test_a_latent_is_of_its_code(case: Case, seed: int) -> None:
    """The parts of a latent give the indices back, and the codes that they stand for."""
    quantizer, x = build(case, seed, channel_dim=1), maps(seed)
    indices = quantizer.encode(x)
    latents, codes = latents_of(quantizer, x, indices), latent_codes(quantizer, indices)
    width = sum(part.code_dim for part in quantizer.stages)
    assert latents.shape == codes.shape == (2, width, 5)
    assert torch.equal(encode_latents(quantizer, latents), indices)
    last = codes.movedim(1, -1).split([part.code_dim for part in quantizer.stages], -1)
    scales = getattr(quantizer, "log_scales", None)
    values = [
        part.project_out(own) * (1.0 if scales is None else scales[place].exp())
        for place, (part, own) in enumerate(zip(quantizer.stages, last, strict=True))
    ]
    value = torch.stack(values).sum(0)
    if isinstance(quantizer, ResidualQuantizer):
        value = quantizer.project_out(value)
    assert_close(value, quantizer.decode(indices).movedim(1, -1))


@few
@given(seed=st.integers(0, 999), count=st.integers(1, 3))
def test_latents_follow_the_residuals(seed: int, count: int) -> None:
    """r_i divided by its scale and projected, written out; fewer stages have fewer."""
    options = {"num_quantizers": 3, "code_dim": 2, "scales": (1.0, 0.5, 0.25)}
    quantizer = build(Case("residual", {**options, "entry": torch.nn.Tanh()}), seed)
    assert isinstance(quantizer, ResidualQuantizer)
    x = normal(seed, 6, DIM)
    indices = quantizer.encode(x, num_codebooks=count)
    left, expected = x.tanh(), []
    scales = quantizer.log_scales.exp()
    for stage, scale, column in zip(quantizer.components, scales, indices.T, strict=False):
        expected.append(stage.project_in(left / scale))
        left = left - scale * stage.decode(column)
    found = latents_of(quantizer, x, indices)
    assert_close(found, torch.cat(expected, -1))
    assert torch.equal(encode_latents(quantizer, found), indices)
    assert latent_codes(quantizer, indices).shape == found.shape


@every_case
def test_what_has_no_code_is_marked(case: Case) -> None:
    quantizer, x = build(case, 0), normal(0, 3, DIM)
    x[1, 2] = torch.nan
    indices = quantizer.encode(x)
    latents, codes = latents_of(quantizer, x, indices), latent_codes(quantizer, indices)
    assert latents[1].isnan().all()
    assert latents[[0, 2]].isfinite().all()
    assert (codes[1] == 0).all()
    assert torch.equal(encode_latents(quantizer, latents), indices)


def test_latents_reach_what_they_come_from() -> None:
    """A loss on them moves vectors and projections."""
    quantizer, x = build(Case("residual", {"code_dim": 2}), 0), normal(0, 6, DIM).requires_grad_()
    latents_of(quantizer, x, quantizer.encode(x)).square().sum().backward()
    assert x.grad.norm() > 0
    assert all(part.project_in.weight.grad.norm() > 0 for part in quantizer.stages)


def test_wrong_arguments_are_named() -> None:
    quantizer = quantizers.create("residual", dim=DIM, codebook_size=8, num_quantizers=2, code_dim=3)
    for channels in (2, 4, 9):
        with pytest.raises(ValueError, match=rf"latents have {channels} channels, expected one of \[3, 6\]"):
            encode_latents(quantizer, torch.zeros(5, channels))
    with pytest.raises(IndexError, match="expected 0 to 7"):
        latent_codes(quantizer, torch.tensor([[0, 8]]))
    with pytest.raises(ValueError, match=r"indices have 3 columns on the last axis, expected one of \[1, 2\]"):
        latent_codes(quantizer, torch.zeros(5, 3, dtype=torch.int64))
