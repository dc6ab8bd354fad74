"""The operations against exact arithmetic, float64 and closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from quantizers.kernels import reference
from quantizers.kernels.reference import (
    code_sums,
    gumbel_noise,
    highest_score,
    nearest_code,
    normalize,
    soft_codes,
)
from tests.exact import assert_nearest

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
few = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-8, 3e-8, 1e30, 1e-40])


@st.composite
def vectors(draw: st.DrawFn, dim: int, largest: int, values: st.SearchStrategy[float]) -> Tensor:
    count = draw(st.integers(1, largest))
    flat = draw(st.lists(values, min_size=count * dim, max_size=count * dim))
    return torch.tensor(flat, dtype=torch.float32).view(count, dim)


@settings(max_examples=500)
@given(data=st.data(), dim=st.integers(1, 4), values=st.sampled_from([finite, few]))
def test_nearest_code_is_exact(data: st.DataObject, dim: int, values: st.SearchStrategy[float]) -> None:
    """Any float32 values: ties, duplicates, denormals, clusters far apart and codes a rounding apart."""
    x, codebook = data.draw(vectors(dim, 6, values)), data.draw(vectors(dim, 12, values))
    indices, distance = nearest_code(x[None], codebook[None])
    assert_nearest(indices[0], x, codebook)
    torch.testing.assert_close(distance[0], (x - codebook[indices[0]]).square().sum(-1), equal_nan=True)


@given(
    seed=st.integers(0, 2**31),
    dim=st.sampled_from([1, 3, 8, 33]),
    offset=st.sampled_from([0.0, 100.0, 1000.0, -1e6]),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
)
def test_nearest_code_is_exact_at_any_offset(
    seed: int, dim: int, offset: float, scale: float, dtype: torch.dtype
) -> None:
    if dtype == torch.float16:
        offset, scale = max(min(offset, 1000.0), -1000.0), min(scale, 100.0)
    generator = torch.Generator().manual_seed(seed)
    x = (offset + scale * torch.randn(20, dim, generator=generator)).to(dtype)
    codebook = (offset + scale * torch.randn(30, dim, generator=generator)).to(dtype)
    assert_nearest(nearest_code(x[None], codebook[None])[0][0], x, codebook)


@given(seed=st.integers(0, 2**31), heads=st.integers(1, 3), budget=st.sampled_from([1, 50, 1000]))
def test_nearest_code_blocks_and_heads(seed: int, heads: int, budget: int) -> None:
    """Neither the block size nor another head's codes change a result."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(heads, 17, 3, generator=generator)
    codebook = torch.randn(heads, 13, 3, generator=generator)
    expected = torch.stack(
        [torch.cdist(a.double(), b.double()).argmin(1) for a, b in zip(x, codebook, strict=True)]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "SCORE_BUDGET", budget)
        assert torch.equal(nearest_code(x, codebook)[0], expected)


def test_nearest_code_duplicates_go_to_the_lowest_index() -> None:
    """Wide rows, where a matrix product sums the columns at its edges in another order."""
    x = torch.randn(1, 257, 129)
    codebook = torch.randn(1, 7, 129).repeat(1, 31, 1)
    assert (nearest_code(x, codebook)[0] < 7).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_nearest_code_of_broken_vectors_and_codes(value: float) -> None:
    x, codebook = torch.randn(1, 10, 4), torch.randn(1, 6, 4)
    expected, _ = nearest_code(x, codebook[:, 2:])
    codebook[0, 0, 1] = codebook[0, 1, 3] = value
    indices, _ = nearest_code(x, codebook)
    assert torch.equal(indices, expected + 2)

    x[0, 4, 2] = value
    indices, distance = nearest_code(x, codebook)
    assert indices[0, 4] == -1
    assert distance[0, 4].isnan()
    assert torch.equal(indices[0, 5:], expected[0, 5:] + 2)

    codebook[:] = value
    assert (nearest_code(x, codebook)[0] == -1).all()


@given(data=st.data(), dim=st.integers(1, 3))
def test_highest_score_is_exact(data: st.DataObject, dim: int) -> None:
    values = st.sampled_from([0.0, 1.0, -1.0, 0.25, 100.0])  # products and sums of these are exact in float64
    x, keys = data.draw(vectors(dim, 6, values)), data.draw(vectors(dim, 12, values))
    bias = data.draw(vectors(1, 12, values)).flatten()
    size = min(len(keys), len(bias))
    scores = x.double() @ keys[:size].double().T + bias[:size].double()
    lowest = (scores == scores.amax(1, keepdim=True)).long().argmax(1)
    assert torch.equal(highest_score(x, keys[:size], bias[:size]), lowest)


class LargestTensor(TorchDispatchMode):
    """Records the most elements that one result of an operation had."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("degenerate", [False, True], ids=["normal", "all codes equal"])
def test_no_matrix_of_n_by_k(monkeypatch: pytest.MonkeyPatch, degenerate: bool) -> None:
    n, k, d, budget = 512, 512, 4, 8192
    monkeypatch.setattr(reference, "SCORE_BUDGET", budget)
    x = torch.randn(n, d, requires_grad=True)
    codebook = torch.randn(k, d, requires_grad=True)
    if degenerate:
        codebook = torch.zeros(k, d, requires_grad=True)
    with LargestTensor() as largest:
        nearest_code(x[None], codebook[None])
        highest_score(x, codebook, codebook[:, 0])
        value, _, divergence = soft_codes(x, codebook, codebook[:, 0], codebook, torch.ones(()), seed=1)
        (value.sum() + divergence.sum()).backward()
    assert largest.elements <= budget
    assert n * k > budget


# sums


@given(data=st.data(), heads=st.integers(1, 3), size=st.integers(1, 5), n=st.integers(0, 30))
def test_code_sums_against_a_loop(data: st.DataObject, heads: int, size: int, n: int) -> None:
    indices = torch.tensor(
        data.draw(st.lists(st.integers(-1, size - 1), min_size=heads * n, max_size=heads * n)), dtype=torch.int64
    ).view(heads, n)
    x = torch.randn(heads, n, 3)
    x[indices < 0] = torch.nan  # what has no code must not reach a sum
    counts, sums = code_sums(x, indices, size)
    for head in range(heads):
        for code in range(size):
            chosen = x[head][indices[head] == code]
            assert counts[head, code] == len(chosen)
            assert torch.equal(sums[head, code], chosen.double().sum(0).float())


# directions


@given(data=st.data(), dim=st.integers(1, 5))
def test_normalize_gives_unit_vectors_at_any_scale(data: st.DataObject, dim: int) -> None:
    x = data.draw(vectors(dim, 5, finite))
    unit = normalize(x)
    nonzero = (x != 0).any(-1)  # denormals too
    norms = torch.linalg.vector_norm(unit.double(), dim=-1)
    # D squares and sums, a root and two divisions, each within one rounding
    tolerance = (dim + 4) * torch.finfo(torch.float32).eps
    assert all(abs(norm - 1) <= tolerance for norm in norms[nonzero].tolist())
    assert (unit[(x == 0).all(-1)] == 0).all()


@given(seed=st.integers(0, 999), scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
def test_normalize_gradient_is_the_projection(seed: int, scale: float) -> None:
    """(g − x̂(x̂·g)) / ‖x‖, at scales whose squares leave float32."""
    generator = torch.Generator().manual_seed(seed)
    x = (scale * torch.randn(3, 5, generator=generator)).requires_grad_()
    g = torch.randn(3, 5, generator=generator)
    (actual,) = torch.autograd.grad(normalize(x), x, g)
    wide, g64 = x.detach().double(), g.double()
    norm = wide.norm(dim=-1, keepdim=True)
    unit = wide / norm
    expected = (g64 - unit * (unit * g64).sum(-1, keepdim=True)) / norm
    bound = 16 * torch.finfo(torch.float32).eps * (g64.norm(dim=-1, keepdim=True) / norm)
    assert ((actual.double() - expected).abs() <= bound).all()


def test_normalize_passes_the_gradient_of_a_zero_vector() -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    g = torch.randn(2, 3)
    (gradient,) = torch.autograd.grad(normalize(x), x, g)
    assert torch.equal(gradient, g)


# soft codes


def explicit_soft_codes(
    x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, temperature: Tensor, seed: int | None
):  # type: ignore[no-untyped-def]
    logits = x @ keys.T + bias
    noise = 0 if seed is None else gumbel_noise(logits, seed)
    p = logits.softmax(-1)
    y = torch.softmax((logits + noise) / temperature, -1)
    return y @ values, y.argmax(-1), (p * p.log()).sum(-1) + math.log(len(keys))


@given(seed=st.integers(0, 999), temperature=st.sampled_from([0.1, 1.0, 4.0]), noisy=st.booleans())
def test_soft_codes_and_gradients_are_softmax(seed: int, temperature: float, noisy: bool) -> None:
    """Value, divergence and every gradient, against autograd through the whole N × K softmax in float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(9, 3), (6, 3), (6,), (6, 2)]
    tensors = [torch.randn(*s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    tau = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    g = torch.randn(9, 2, generator=generator, dtype=torch.float64)
    results = []
    for function in (soft_codes, explicit_soft_codes):
        value, indices, divergence = function(*tensors, tau, seed if noisy else None)
        gradients = torch.autograd.grad((value * g).sum() + divergence.sum(), [*tensors, tau])
        results.append((value, indices, divergence, *gradients))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)  # float64's default: 1e-7 relative, 1e-7 absolute


def test_soft_codes_blocks_draw_different_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "SCORE_BUDGET", 64)
    x = torch.zeros(64, 2)
    keys = torch.zeros(16, 2)
    value, *_ = soft_codes(x, keys, keys[:, 0], torch.randn(16, 3), torch.ones(()), seed=5)
    assert len(value.unique(dim=0)) == 64


def test_gumbel_noise_is_gumbel() -> None:
    """Mean γ = 0.5772, variance π²/6; n samples, so within five standard errors."""
    n = 200_000
    noise = gumbel_noise(torch.empty(n), seed=3).double()
    variance = math.pi**2 / 6
    assert abs(noise.mean() - 0.5772156649) < 5 * math.sqrt(variance / n)
    fourth = (3 + 12 / 5) * variance**2  # kurtosis 3 + 12/5
    assert abs(noise.var() - variance) < 5 * math.sqrt((fourth - variance**2) / n)


def test_gumbel_samples_follow_the_softmax() -> None:
    """The index of the noisy maximum is a sample of softmax(logits): chi-square of five codes, p > 10⁻⁶."""
    n = 20_000
    bias = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5])
    keys = torch.zeros(5, 1)
    _, indices, _ = soft_codes(torch.zeros(n, 1), keys, bias, keys, torch.ones(()), seed=11)
    expected = bias.softmax(0) * n
    chi_square = ((torch.bincount(indices, minlength=5) - expected).square() / expected).sum()
    assert chi_square < 33.4  # the 1 − 10⁻⁶ quantile at four degrees of freedom
