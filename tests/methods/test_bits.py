"""LFQ and BSQ: the loss written out over all codes, indices of up to 63 bits, BSQ's bounded error.

More of the loss's batch entropy is in `test_joint_entropy.py`.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers import BSQ, LFQ
from quantizers.scalar.bits import bit_entropy
from quantizers.scalar.joint_entropy import joint_entropy
from tests.cases import normal

EPS = torch.finfo(torch.float64).eps
METHODS = {"lfq": LFQ, "bsq": BSQ}

methods = st.sampled_from(list(METHODS))
every_method = pytest.mark.parametrize("method", METHODS)
seeds = st.integers(0, 2**31)
few_bits = st.integers(1, 7)
many_bits = st.lists(st.booleans(), min_size=1, max_size=63)


def build(method: str, bits: int, **options: float) -> LFQ | BSQ:
    return METHODS[method](bits, 2**bits, **options)


def all_codes(quantizer: LFQ | BSQ) -> Tensor:
    """By arithmetic of their own: [2^L, L], code k has the sign of bit i of k in channel i."""
    bits = quantizer.code_dim
    size = 1.0 if isinstance(quantizer, LFQ) else 1 / math.sqrt(bits)
    rows = [[size if k >> i & 1 else -size for i in range(bits)] for k in range(2**bits)]
    return torch.tensor(rows, dtype=torch.float64)


def entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)


def soft_assignment(quantizer: LFQ | BSQ, z: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors that are quantized, and softmax over all codes of −‖u − c‖² / T: [N, L] and [N, 2^L]."""
    u = z if isinstance(quantizer, LFQ) else z / z.norm(dim=-1, keepdim=True)
    distances = (u[:, None] - all_codes(quantizer)).square().sum(-1)
    return u, (-distances / quantizer.temperature).softmax(-1)


def groups_of_mean(quantizer: LFQ | BSQ, p: Tensor, size: int) -> Tensor:
    """Σ_g of the entropies of groups of `size` bits of mean_n p_n, a pattern's by its codes."""
    codes = torch.arange(p.shape[-1])
    starts = range(0, quantizer.code_dim, size)
    patterns = [(codes >> start) % 2**size for start in starts]
    sums = [p.new_zeros(2**size).index_add(0, pattern, p.mean(0)) for pattern in patterns]
    return entropy(torch.stack(sums)).sum()


# The loss


@given(
    method=methods,
    seed=seeds,
    sizes=st.sampled_from(
        [(1, 1), (4, 1), (7, 1), (2, 2), (4, 2), (6, 2), (3, 3), (6, 3), (4, 4), (5, 5), (7, 7)]
    ),
    rows=st.integers(1, 6),
    temperature=st.sampled_from([0.2, 1.0, 5.0]),
    diversity=st.sampled_from([0.0, 1.0, 2.5]),
    commitment_weight=st.sampled_from([0.0, 0.25]),
)
def test_loss_and_gradient_are_those_of_the_softmax_over_all_codes(
    method: str,
    seed: int,
    sizes: tuple[int, int],
    rows: int,
    temperature: float,
    diversity: float,
    commitment_weight: float,
) -> None:
    bits, group_bits = sizes
    quantizer = build(
        method,
        bits,
        group_bits=group_bits,
        entropy_weight=0.7,
        diversity=diversity,
        temperature=temperature,
        commitment_weight=commitment_weight,
    ).double()
    z = normal(seed, rows, bits).requires_grad_()
    out = quantizer(z)
    (actual,) = torch.autograd.grad(out.loss, z)

    u, p = soft_assignment(quantizer, z)
    spread = entropy(p).mean() - diversity * groups_of_mean(quantizer, p, group_bits)
    codes = all_codes(quantizer)[out.indices]
    loss = 0.7 * spread + commitment_weight * (u - codes).square().mean()
    (expected,) = torch.autograd.grad(loss, z)
    # Distances over T are below 2⁹ for |z| < 5, so that each p is right to 2⁹ eps; its entropy sums 2^L ≤ 2⁷ of
    # them times a logarithm below 2⁹, and a derivative has another factor 4/T < 2⁵ and 1/‖z‖, here below 2⁷.
    tolerance = 2.0**25 * EPS
    assert abs(out.loss - loss) <= tolerance
    assert (actual - expected).abs().max() <= 2**12 * tolerance


@given(method=methods, seed=seeds, bits=few_bits, rows=st.integers(1, 9), spread=st.sampled_from([0.1, 1.0, 10.0]))
def test_the_bits_entropies_bound_that_of_the_mean_assignment(
    method: str, seed: int, bits: int, rows: int, spread: float
) -> None:
    """Σ_i H(mean_n p_ni) ≥ H(mean_n p_n), and as much for a single vector, whose bits are independent."""
    options = {"entropy_weight": -1.0, "commitment_weight": 0.0, "group_bits": 1}
    quantizer = build(method, bits, **options).double()
    z = spread * normal(seed, rows, bits)
    _, p = soft_assignment(quantizer, z)
    bits_less_each = quantizer(z).loss  # with the weight −1
    mean_less_each = entropy(p.mean(0)) - entropy(p).mean()
    rounding = 2.0**25 * EPS  # as above
    assert bits_less_each >= mean_less_each - rounding
    assert abs(quantizer(z[:1]).loss) <= rounding


@given(size=st.floats(0, 100), sign=st.sampled_from([-1, 1]))
def test_entropy_of_a_sure_bit_is_exact_and_has_a_gradient(size: float, sign: int) -> None:
    """Where a probability clamped at 10⁻⁵ has none: (1 + ℓ) e^−ℓ is 10⁻⁴² at the end."""
    logit = torch.tensor(sign * size, dtype=torch.float32).requires_grad_()
    exact = abs(float(logit.detach()))
    value = bit_entropy(logit)
    (slope,) = torch.autograd.grad(value, logit)
    tail = 1 / (1 + math.exp(exact))
    # Exponential, logarithm, product and sum: each within 4 eps. Below float32's normal range σ may become zero,
    # and ℓ times it with it.
    relative, absolute = 16 * 2.0**-23, (2 + exact) * 2.0**-126
    expected = math.log1p(math.exp(-exact)) + exact * tail
    for entropy_of_bit in (value, joint_entropy(logit.view(1, 1), torch.tensor([True]), (1,))):
        assert abs(float(entropy_of_bit.detach()) - expected) <= relative * expected + absolute
    # The derivatives of both summands are up to (1 + |ℓ|) σ(−|ℓ|).
    assert abs(float(slope) + sign * exact * tail * (1 - tail)) <= relative * (1 + exact) * tail + absolute


@every_method
@pytest.mark.parametrize("group_bits", [1, 2, 4])
@pytest.mark.parametrize("temperature", [1e-30, 1e-3, 1e30])
@pytest.mark.parametrize("value", [0.0, -0.0, 2.0**-149, 1e-30, 1e30, torch.finfo(torch.float32).max])
def test_entropies_are_finite_at_any_scale(method: str, group_bits: int, temperature: float, value: float) -> None:
    """Logits of ∞ too, and a loss without the commitment, which alone may be infinite."""
    quantizer = build(method, 4, group_bits=group_bits, temperature=temperature, commitment_weight=0.0)
    signs = torch.tensor([[1.0, -1.0, 1.0, 1.0], [1.0, 1.0, 1.0, -1.0]])
    z = (value * signs).requires_grad_()
    loss = quantizer(z).loss
    loss.backward()
    assert loss.isfinite()
    assert not z.grad.isnan().any()
    assert z.grad.isfinite().all() or (method == "bsq" and 0 < value < 1e-20)  # there 1/‖z‖ is beyond float32


# Codes and indices


@given(method=methods, signs=many_bits)
def test_index_has_a_bit_for_each_sign_up_to_63(method: str, signs: list[bool]) -> None:
    """index = Σ 2^i · [z_i > 0], and decoding gives the code of these signs back; up to the code 2⁶³ − 1."""
    quantizer = build(method, len(signs))
    z = torch.tensor([0.3 if sign else -0.7 for sign in signs])
    quantized, index, _ = quantizer(z)
    assert int(index) == sum(2**i for i, sign in enumerate(signs) if sign)
    size = 1.0 if method == "lfq" else len(signs) ** -0.5
    assert torch.equal(quantized, torch.tensor([size if sign else -size for sign in signs]))
    assert torch.equal(quantizer.decode(index), quantized)
    assert torch.equal(quantizer.encode(quantized), index)


@every_method
def test_the_largest_codebook(method: str) -> None:
    quantizer = build(method, 63)
    assert quantizer.codebook_size == 2**63
    assert quantizer.encode(torch.ones(63)) == 2**63 - 1
    assert (quantizer.decode(torch.tensor(2**63 - 1)) > 0).all()
    with pytest.raises(IndexError, match="expected 0 to 9223372036854775807"):
        quantizer.decode(torch.tensor(-2))
    with pytest.raises(ValueError, match="has 9223372036854775808 codes: too large to build; decode"):
        _ = quantizer.codebook


@every_method
@pytest.mark.parametrize("bits", [1, 5, 9])
def test_codebook_lists_all_signs(method: str, bits: int) -> None:
    quantizer = build(method, bits)
    assert torch.equal(quantizer.codebook, all_codes(quantizer).float())
    assert torch.equal(quantizer.encode(quantizer.codebook), torch.arange(2**bits))


@every_method
def test_zero_of_either_sign_is_bit_zero(method: str) -> None:
    z = torch.tensor([[0.0, -0.0, 1.0], [-0.0, 2.0**-149, -1.0]])
    quantizer = build(method, 3)
    assert quantizer.encode(z).tolist() == quantizer(z).indices.tolist() == [4, 2]


@given(seed=seeds, bits=few_bits)
def test_lfq_code_is_the_nearest_of_all(seed: int, bits: int) -> None:
    quantizer = LFQ(bits, 2**bits).double()
    z = normal(seed, 20, bits)
    assert torch.equal(quantizer.encode(z), torch.cdist(z, all_codes(quantizer)).argmin(-1))


# The sphere


@given(seed=seeds, bits=st.integers(1, 63), sparsity=st.integers(1, 12))
def test_bsq_error_is_bounded(seed: int, bits: int, sparsity: int) -> None:
    """‖u − q‖² = 2 − 2‖u‖₁/√L ≤ 2 − 2/√L, which one channel alone reaches."""
    z = normal(seed, 10, bits) ** sparsity  # high powers leave one large channel
    z[0] = torch.eye(bits, dtype=torch.float64)[seed % bits]
    quantizer = BSQ(bits, 2**bits).double()
    u = z / z.norm(dim=-1, keepdim=True)
    error = (u - quantizer(z).quantized).square().sum(-1)
    rounding = 8 * (bits + 4) * EPS  # two norms of L terms, each below 2
    assert (error <= 2 - 2 / math.sqrt(bits) + rounding).all()
    assert ((error - (2 - 2 * u.abs().sum(-1) / math.sqrt(bits))).abs() <= rounding).all()
    assert abs(error[0] - (2 - 2 / math.sqrt(bits))) <= rounding


@given(seed=seeds, bits=st.integers(1, 20), exponent=st.integers(-100, 100))
def test_bsq_knows_no_length(seed: int, bits: int, exponent: int) -> None:
    z = normal(seed, 6, bits, dtype=torch.float32)
    quantizer = BSQ(bits, 2**bits)
    for a, b in zip(quantizer(z), quantizer(2.0**exponent * z), strict=True):
        assert torch.equal(a, b)


@given(method=methods, seed=seeds, bits=st.integers(2, 9))
def test_straight_through_reaches_what_is_quantized(method: str, seed: int, bits: int) -> None:
    """LFQ: g. BSQ: (I − uuᵀ) g / ‖z‖."""
    quantizer = build(method, bits).double()
    z, g = normal(seed, 5, bits).requires_grad_(), normal(seed + 1, 5, bits)
    (actual,) = torch.autograd.grad(quantizer(z).quantized, z, g)
    length = z.detach().norm(dim=-1, keepdim=True)
    u = z.detach() / length
    expected = g if method == "lfq" else (g - (g * u).sum(-1, keepdim=True) * u) / length
    # Sums of L products of numbers below 5, and the quotient by a length that is that of ordinary vectors.
    rounding = 8 * (bits + 4) * 25 * EPS / length.clamp(max=1)
    assert ((actual - expected).abs() <= rounding).all()


# Errors


@every_method
@pytest.mark.parametrize(
    ("size", "message"),
    [
        (33, "codebook_size is 33, expected a power of two; the nearest are 32 and 64"),
        (2**62 + 1, "the nearest are 4611686018427387904 and 9223372036854775808"),
        (2**64, r"codebook_size is 18446744073709551616, expected at most 2\*\*63"),
        (1, "codebook_size is 1, expected an integer of at least 2"),
        (8.0, "codebook_size is 8.0, expected an integer"),
    ],
)
def test_wrong_sizes_are_named(method: str, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        METHODS[method](4, size)


@every_method
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_wrong_temperature_is_named(method: str, temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature is .*, expected a number above 0"):
        build(method, 4, temperature=temperature)
