"""Random-projection quantization (Chiu et al. 2022): equation 1, and that nothing ever moves."""

import copy
import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from quantizers import RandomProjectionQuantizer
from tests.cases import normal
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)


@examples(20)
@given(seed=seeds, dim=st.integers(1, 20), code_dim=st.integers(1, 20), size=st.integers(1, 40))
def test_the_index_is_the_papers_equation(seed: int, dim: int, code_dim: int, size: int) -> None:
    """argmin_i ‖ e_i/‖e_i‖ − Ax/‖Ax‖ ‖, in float64, up to distances that its roundings cannot tell apart."""
    torch.manual_seed(seed)
    quantizer = RandomProjectionQuantizer(dim, size, code_dim=code_dim).double()
    x = normal(seed, 10, dim)
    projected = F.normalize(x @ quantizer.project_in.weight.T, dim=-1)
    distances = (projected[:, None] - F.normalize(quantizer.codes, dim=-1)).square().sum(-1)
    indices = quantizer(x).indices
    chosen = distances.gather(1, indices[:, None])[:, 0]
    # The direction of Ax is off by its sum's roundings relative to Σ|a x|, which cancellation makes many.
    terms = x.abs() @ quantizer.project_in.weight.abs().T
    lost = terms.norm(dim=-1) / (x @ quantizer.project_in.weight.T).norm(dim=-1)
    assert (chosen <= distances.amin(-1) + 8 * (dim + code_dim + 4) * EPS * lost).all()


@examples(15)
@given(seed=seeds, exponent=st.integers(-60, 60))
def test_the_scale_of_a_vector_does_not_matter(seed: int, exponent: int) -> None:
    """Exactly so for a power of two, which moves no digit."""
    torch.manual_seed(seed)
    quantizer = RandomProjectionQuantizer(12, 64)
    x = normal(seed, 20, 12, dtype=torch.float32)
    out, scaled = quantizer(x), quantizer(2.0**exponent * x)
    assert torch.equal(scaled.indices, out.indices)
    assert torch.equal(scaled.quantized, out.quantized)


def test_no_optimizer_moves_codes_or_projection() -> None:
    quantizer = RandomProjectionQuantizer(12, 64)
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    statistics = {f"project_{where}.{name}" for where in ("in", "out") for name in ("mean", "deviation")}
    assert set(before) == {"codes", "project_in.weight", "project_out.weight"} | statistics
    assert list(quantizer.parameters()) == []
    encoder = torch.nn.Linear(5, 12)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *quantizer.parameters()], lr=1.0, weight_decay=0.5)
    for _ in range(3):
        out = quantizer(encoder(torch.randn(9, 5)))
        assert out.loss == 0
        optimizer.zero_grad()
        (out.quantized.square().sum() + out.loss).backward()
        assert encoder.weight.grad.abs().sum() > 0
        optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantizer.state_dict().items())


def test_targets_are_the_same_after_a_restart() -> None:
    quantizer, restarted = RandomProjectionQuantizer(12, 64), RandomProjectionQuantizer(12, 64)
    x = torch.randn(200, 12)
    assert not torch.equal(restarted.encode(x), quantizer.encode(x))
    file = io.BytesIO()
    torch.save(quantizer.state_dict(), file)
    file.seek(0)
    restarted.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(restarted.encode(x), quantizer.encode(x))


@examples(10)
@given(seed=seeds, dim=st.integers(8, 30), code_dim=st.integers(1, 6))
def test_a_decoded_code_has_its_own_index_and_is_the_shortest_such(seed: int, dim: int, code_dim: int) -> None:
    """A A⁺ = 1 for code_dim ≤ dim, and A⁺e lies in the row space of A, as the shortest solution does."""
    torch.manual_seed(seed)
    quantizer = RandomProjectionQuantizer(dim, 32, code_dim=code_dim)
    decoded = quantizer.decode(torch.arange(32)).double()
    a = quantizer.project_in.weight.double()
    # A⁺ is computed in float32, whose error is that of a solution: the condition number times some roundings.
    tolerance = 100 * dim * 2.0**-24 * float(torch.linalg.cond(a))
    torch.testing.assert_close(decoded @ a.T, quantizer.codebook.double(), rtol=0, atol=tolerance)
    rows = torch.linalg.svd(a, full_matrices=False).Vh
    largest = float(decoded.abs().max())
    torch.testing.assert_close(decoded @ rows.T @ rows, decoded, rtol=0, atol=tolerance * largest)


@examples(10)
@given(seed=seeds)
def test_the_gradient_is_straight_through_between_the_projections(seed: int) -> None:
    """AᵀA⁺ᵀ g, whatever the length of x."""
    torch.manual_seed(seed)
    quantizer = RandomProjectionQuantizer(5, 16, code_dim=3).double()
    x, g = (2.0**-80 * normal(seed, 4, 5)).requires_grad_(), normal(seed + 1, 4, 5)
    (actual,) = torch.autograd.grad(quantizer(x).quantized, x, g)
    a, back = quantizer.project_in.weight, quantizer.project_out.weight
    # Two sums, of five and of three terms.
    tolerance = 10 * EPS * float((g.abs() @ back.abs() @ a.abs()).max())
    torch.testing.assert_close(actual, g @ back @ a, rtol=0, atol=tolerance)


@examples(10)
@given(seed=seeds, scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_after_data_an_affine_map_of_each_channel_changes_no_target(seed: int, scale: float) -> None:
    """Mean 0 and variance 1 undo it, and values follow the map; a constant channel is centred alone."""
    torch.manual_seed(seed)
    plain = RandomProjectionQuantizer(6, 32, code_dim=4).double()
    mapped = copy.deepcopy(plain)
    x = normal(seed, 60, 6)
    x[:, 5] = 2.0
    slope, shift = scale * (0.5 + torch.rand(6, dtype=torch.float64)), 100 * scale * normal(seed + 1, 6)
    slope[5] = 1.0
    plain.initialize_from(x)
    mapped.initialize_from(x * slope + shift)
    y = (x - plain.project_in.mean) / plain.project_in.deviation
    torch.testing.assert_close(y[:, :5].mean(0), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(y[:, :5].var(0, correction=0), torch.ones(5, dtype=torch.float64))
    assert plain.project_in.deviation[5] == 1
    out, other = plain(x), mapped(x * slope + shift)
    # A shift of 100 deviations costs seven bits of 52; distances between random codes are not that close.
    assert torch.equal(out.indices, other.indices)
    torch.testing.assert_close(out.quantized * slope + shift, other.quantized, rtol=1e-9, atol=1e-9 * scale)
    assert torch.equal(plain.encode(out.quantized), out.indices)


def test_data_spreads_vectors_with_an_offset_over_the_codes() -> None:
    """The failure that the normalization prevents: with an offset, all directions are one."""
    torch.manual_seed(0)
    quantizer, x = RandomProjectionQuantizer(12, 64), 30 + torch.randn(2000, 12)
    assert quantizer.encode(x).unique().numel() < 8
    quantizer.initialize_from(x)
    assert quantizer.encode(x).unique().numel() > 48


def test_no_forward_moves_a_target_and_frozen_ones_stay() -> None:
    quantizer, x = RandomProjectionQuantizer(12, 64), torch.randn(200, 12)
    quantizer.initialize_from(x)
    before = quantizer.encode(x)
    quantizer.train()(50 + x)
    quantizer.freeze().initialize_from(50 + x)
    assert torch.equal(quantizer.encode(x), before)
    with pytest.raises(ValueError, match="no vector counts"):
        quantizer.unfreeze().initialize_from(x[:0])


def test_the_width_of_a_code_is_the_papers_or_the_vectors() -> None:
    assert RandomProjectionQuantizer(320, 8).code_dim == 16
    assert RandomProjectionQuantizer(7, 8).code_dim == 7
    with pytest.raises(ValueError, match="code_dim is 0, expected an integer of at least 1"):
        RandomProjectionQuantizer(7, 8, code_dim=0)
