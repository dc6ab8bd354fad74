"""distance="angle": the nearest direction, and a code that keeps its length."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import quantizers
from quantizers import NSVQ, DiVeQ, EMAVectorQuantizer, MultiHeadVectorQuantizer, OptVQ, SimVQ, VectorQuantizer
from quantizers.core.layout import to_rows
from quantizers.training.regularizers import Regularizer
from tests.cases import normal
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
DIM, SIZE = 3, 16
few = examples(10)
seeds = st.integers(0, 2**31)
methods = pytest.mark.parametrize("method", [VectorQuantizer, EMAVectorQuantizer, SimVQ, DiVeQ, NSVQ, OptVQ])


def by_angle(method: type[quantizers.Quantizer] = VectorQuantizer, seed: int = 0, **options: object) -> object:
    """In float64, with codes of many lengths."""
    torch.manual_seed(seed)
    quantizer = method(DIM, SIZE, distance="angle", **options).double()  # type: ignore[call-arg]
    lengths = torch.logspace(-3, 3, SIZE, dtype=torch.float64)[torch.randperm(SIZE)]
    quantizer.set_codebook(F.normalize(normal(seed, SIZE, DIM)) * lengths[:, None])  # type: ignore[operator]
    return quantizer


def nearest_direction(z: Tensor, codebook: Tensor) -> Tensor:
    """[N]; no two cosines of random vectors in float64 are as near as their roundings."""
    return F.cosine_similarity(z[:, None], codebook, dim=-1).argmax(-1)


@methods
@few
@given(seed=seeds, exponent=st.integers(-20, 20))
def test_the_code_is_that_of_the_nearest_direction(method: type, seed: int, exponent: int) -> None:
    """With its own length; lengths of vectors and codes choose nothing."""
    quantizer = by_angle(method, seed).eval()  # type: ignore[attr-defined]
    z = 2.0**exponent * normal(seed + 1, 20, DIM)
    codebook = quantizer.codebook.detach()
    expected = nearest_direction(z, codebook)
    quantized, indices, _ = quantizer(z)
    assert torch.equal(indices, expected)
    assert torch.equal(quantizer.encode(z), expected)
    assert torch.equal(quantized, codebook[expected])
    euclidean = torch.cdist(z, codebook).argmin(-1)
    assert (euclidean != expected).any()


@few
@given(seed=seeds, commitment=st.sampled_from([0.0, 0.25]), codebook=st.sampled_from([0.0, 1.0]))
def test_losses_and_gradients_are_of_the_vectors_themselves(seed: int, commitment: float, codebook: float) -> None:
    quantizer = by_angle(seed=seed, commitment_weight=commitment, codebook_weight=codebook)
    z, g = normal(seed + 1, 20, DIM).requires_grad_(), normal(seed + 2, 20, DIM)
    quantized, indices, loss = quantizer(z)  # type: ignore[operator]
    (passed,) = torch.autograd.grad((quantized * g).sum(), z, retain_graph=True)
    assert torch.equal(passed, g)
    codes = quantizer.embedding[indices]  # type: ignore[attr-defined]
    expected = commitment * F.mse_loss(z, codes.detach()) + codebook * F.mse_loss(codes, z.detach())
    # N·D terms of one sign, a few roundings each.
    torch.testing.assert_close(loss, expected, rtol=(20 * DIM + 8) * EPS, atol=0)
    inputs = [z, quantizer.embedding]  # type: ignore[attr-defined]
    found, wanted = (torch.autograd.grad(of, inputs) for of in (loss, expected))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=(20 + 8) * EPS * float(other.abs().max()))


@few
@given(seed=seeds)
def test_transport_is_of_directions(seed: int) -> None:
    """Vectors and codes of other lengths are assigned alike in training."""
    quantizer = by_angle(OptVQ, seed)
    z = normal(seed + 1, 20, DIM)
    longer = z * 2.0 ** torch.arange(-10, 10, dtype=torch.float64)[:, None]
    assert torch.equal(quantizer(longer).indices, quantizer(z).indices)  # type: ignore[operator]


@few
@given(seed=seeds)
def test_averages_are_of_the_vectors_themselves(seed: int) -> None:
    quantizer = by_angle(EMAVectorQuantizer, seed, decay=0.0)
    z = normal(seed + 1, 200, DIM)
    indices = quantizer(z).indices  # type: ignore[operator]
    for code in indices.unique():
        own = z[indices == code]
        # Smoothing moves a mean by up to K ε, 10⁻⁵, of a vector; sums round.
        allowed = (2 * SIZE * 1e-5 + 400 * EPS) * own.abs().mean(0).max()
        assert ((quantizer.codebook[code] - own.mean(0)).abs() <= allowed).all()  # type: ignore[attr-defined]


class Seen(Regularizer):
    """Keeps what it gets."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def __call__(self, z: Tensor, valid: Tensor, codes: Tensor) -> Tensor:
        self.held = z, codes
        return z.sum() * 0


def test_regularizers_get_directions() -> None:
    seen = Seen()
    quantizer = by_angle(regularizers=[seen])
    z = normal(1, 20, DIM)
    quantizer(z)  # type: ignore[operator]
    for found, whole in zip(seen.held, (z, quantizer.codebook), strict=True):  # type: ignore[attr-defined]
        torch.testing.assert_close(found, F.normalize(whole), rtol=0, atol=8 * EPS)


def test_replacement_gets_vectors_with_their_lengths_and_none_without_direction() -> None:
    quantizer = by_angle()
    z = torch.cat([5 * normal(1, 4, DIM), torch.zeros(1, DIM, dtype=torch.float64)])
    rows = to_rows(z, None, DIM, -1)
    ((_, vectors, indices),) = quantizer.learned_rows(rows, quantizer.encode(z))  # type: ignore[attr-defined]
    assert torch.equal(vectors, z)
    assert (indices[:4] >= 0).all()
    assert indices[4] == -1


def test_heads_are_not_searched_by_angle() -> None:
    with pytest.raises(ValueError, match="distance is 'angle', expected 'euclidean' or 'cosine'"):
        MultiHeadVectorQuantizer(4, 8, distance="angle")
