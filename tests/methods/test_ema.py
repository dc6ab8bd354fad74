"""EMA VQ: its sums follow their closed form, and the codebook follows its sums."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from quantizers import EMAVectorQuantizer
from tests.cases import assert_same_state, state_of

EPS = torch.finfo(torch.float32).eps


def smoothed(cluster_size: Tensor, epsilon: float) -> Tensor:
    total = cluster_size.sum()
    return (cluster_size + epsilon) / (total + len(cluster_size) * epsilon) * total


@given(seed=st.integers(0, 2**31), decay=st.sampled_from([0.0, 0.5, 0.99]), steps=st.integers(1, 6))
def test_sums_follow_their_closed_form(seed: int, decay: float, steps: int) -> None:
    """N_t = γᵗ N_0 + (1−γ) Σ_s γ^{t−s} n_s, m_t likewise, e = m / N̂, with the codes that each step chose by."""
    torch.manual_seed(seed)
    quantizer = EMAVectorQuantizer(3, 6, decay=decay)
    sizes = decay**steps * torch.ones(6, dtype=torch.float64)
    sums = decay**steps * quantizer.codebook.double()
    for step in range(steps):
        x = torch.randn(20, 3)
        indices = quantizer(x).indices
        one_hot = F.one_hot(indices, 6).double()
        weight = (1 - decay) * decay ** (steps - 1 - step)
        sizes += weight * one_hot.sum(0)
        sums += weight * one_hot.T @ x.double()
    # Each step rounds the two products and the sum: three roundings of terms no larger than the largest.
    tolerance = 3 * steps * EPS * max(float(sums.abs().max()), float(sizes.max()), 20.0)
    assert (quantizer.cluster_size - sizes).abs().max() <= tolerance
    assert (quantizer.embedding_sum - sums).abs().max() <= tolerance
    expected = quantizer.embedding_sum / smoothed(quantizer.cluster_size, quantizer.epsilon)[:, None]
    torch.testing.assert_close(quantizer.codebook, expected)


def test_codebook_has_no_gradient_and_the_loss_is_commitment_alone() -> None:
    quantizer = EMAVectorQuantizer(3, 6, commitment_weight=0.5)
    assert not list(quantizer.parameters())
    x = torch.randn(20, 3, requires_grad=True)
    out = quantizer(x)
    expected = 0.5 * (x - out.quantized).square().mean()
    torch.testing.assert_close(out.loss, expected)
    torch.testing.assert_close(torch.autograd.grad(out.loss, x)[0], (x - out.quantized).detach() / 60)


def test_codes_converge_to_the_means_of_their_clusters() -> None:
    centres = torch.tensor([[10.0, 0.0], [0.0, 10.0], [-10.0, 0.0], [0.0, -10.0]])
    quantizer = EMAVectorQuantizer(2, 4, decay=0.5)
    quantizer.set_codebook(centres + torch.randn(4, 2))
    x = (centres[:, None] + 0.1 * torch.randn(4, 50, 2)).reshape(-1, 2)
    for _ in range(40):
        quantizer(x)
    expected = x.view(4, 50, 2).mean(1)
    # 2⁻⁴⁰ of the start is left; the smoothing moves N̂ by about Kε/N of itself.
    assert (quantizer.codebook - expected).abs().max() <= 10 * (4 * 1e-5 / 200 + 2**-40 + 8 * EPS) + 50 * EPS


def test_setting_the_codebook_sets_its_sums() -> None:
    """A step in which nothing is chosen anew leaves the codes where they were set."""
    quantizer = EMAVectorQuantizer(3, 6)
    for _ in range(5):
        quantizer(torch.randn(30, 3))
    codes = 5 + torch.randn(6, 3)
    quantizer.set_codebook(codes)
    assert torch.equal(quantizer.codebook, codes)
    quantizer(codes.repeat(4, 1))  # every code gets four copies of itself
    torch.testing.assert_close(quantizer.codebook, codes)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_a_new_codebook_is_its_own_average(distance: str) -> None:
    quantizer = EMAVectorQuantizer(3, 6, distance=distance)
    before = quantizer.codebook.clone()
    quantizer(before.repeat(3, 1))
    torch.testing.assert_close(quantizer.codebook, before)


@given(scale=st.sampled_from([1e20, 1e30, 3e38]), n=st.integers(1, 40))
def test_the_codebook_survives_vectors_at_the_end_of_the_range(scale: float, n: int) -> None:
    """Their sum may leave float32; then they do not count."""
    quantizer = EMAVectorQuantizer(3, 6)
    for _ in range(3):
        out = quantizer(scale * (0.5 + 0.5 * torch.rand(n, 3)))
        assert all(tensor.isfinite().all() for tensor in state_of(quantizer).values())
        assert not out.loss.isnan()
    quantizer(torch.randn(10, 3))
    assert quantizer.eval()(torch.randn(10, 3)).quantized.isfinite().all()


def test_averages_of_another_run_go_on() -> None:
    """Two steps are one, and another by a quantizer that took codes and averages over, bit for bit."""
    first, x, y = EMAVectorQuantizer(3, 6), torch.randn(20, 3), torch.randn(20, 3)
    first(x)
    second = EMAVectorQuantizer(3, 6)
    second.set_codebook(first.embedding)
    second.set_averages(first.cluster_size, first.embedding_sum)
    assert torch.equal(second.embedding, first.embedding)
    first(y)
    second(y)
    for name in ("embedding", "cluster_size", "embedding_sum"):
        assert torch.equal(getattr(second, name), getattr(first, name))


@pytest.mark.parametrize(
    ("size", "total", "message"),
    [
        (torch.ones(5), torch.ones(6, 3), r"cluster_size has shape \(5,\), expected \(6,\)"),
        (torch.ones(6), torch.ones(6, 2), r"embedding_sum has shape \(6, 2\), expected \(6, 3\)"),
        (-torch.ones(6), torch.ones(6, 3), "cluster_size contains numbers below 0"),
        (torch.ones(6), torch.full((6, 3), torch.nan), "embedding_sum contains values that are not finite"),
    ],
)
def test_wrong_averages_are_refused(size: Tensor, total: Tensor, message: str) -> None:
    quantizer = EMAVectorQuantizer(3, 6)
    before = state_of(quantizer)
    with pytest.raises(ValueError, match=message):
        quantizer.set_averages(size, total)
    assert_same_state(state_of(quantizer), before)


def test_wrong_codebooks_are_refused() -> None:
    quantizer = EMAVectorQuantizer(3, 6)
    with pytest.raises(ValueError, match=r"codebook has shape \(6, 2\), expected \(6, 3\)"):
        quantizer.set_codebook(torch.zeros(6, 2))
    with pytest.raises(ValueError, match="not finite"):
        quantizer.set_codebook(torch.full((6, 3), torch.nan))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"decay": 1.5}, "decay is 1.5"), ({"decay": -0.1}, "decay is -0.1"), ({"epsilon": 0.0}, "epsilon is 0.0")],
)
def test_wrong_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EMAVectorQuantizer(3, 6, **options)


def test_setting_twice_is_setting_once() -> None:
    quantizer = EMAVectorQuantizer(3, 6)
    quantizer.set_codebook(quantizer.codebook + 1)
    other = copy.deepcopy(quantizer)
    other.set_codebook(other.codebook)
    assert_same_state(state_of(quantizer), state_of(other))
