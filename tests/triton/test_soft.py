"""Soft codes and their gradients against the float64 reference, and its noise bit for bit."""

import math

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.common import noise
from quantizers.kernels.common.triton.noise import LOG_2_OF_LOG_2, binary_gumbel_tile, code_order, noise_words
from quantizers.kernels.highest import reference as highest
from quantizers.kernels.highest.triton import highest_score
from quantizers.kernels.soft import reference as soft
from quantizers.kernels.soft.triton import code_gradients, forward, row_gradients
from quantizers.kernels.soft.triton.backward import soft_codes_backward
from quantizers.kernels.soft.triton.forward import LN_2, soft_codes
from tests.effort import examples
from tests.triton.interpreter import device, runs_kernels

pytestmark = runs_kernels

U = 2.0**-24  # unit roundoff of float32
# Of a product by six products of bfloat16 pieces: the two left out are below 2⁻²², and the third below 2⁻²⁹.
PRODUCT = 2.1 * 2.0**-22
NOISE = 2.0**-20  # error of noise G, relative to 1 + |G|
LARGEST_NOISE = 17.0
UNDERFLOW = 2.0**-100  # probabilities below float32's smallest, times at most 2²⁶


def problem(n: int, size: int, d: int, width: int, seed: int | None, dtype: torch.dtype = torch.float32):  # type: ignore[no-untyped-def]
    """x, keys, bias, values, temperature, seed; and gradients of value and divergence."""
    draw = torch.Generator().manual_seed(n + size + d + width)
    shapes = [(n, d), (size, d), (size,), (size, width)]
    tensors = [torch.randn(*shape, generator=draw).to(dtype) for shape in shapes]
    gradients = [torch.randn(n, width, generator=draw), torch.randn(n, generator=draw)]
    return [*tensors, torch.tensor(0.7), None if seed is None else torch.tensor(seed)], gradients


def on_device(tensors: list[Tensor | None]) -> list[Tensor | None]:
    return [None if t is None else t.to(device()) for t in tensors]


class Bounds:
    """Errors that float32 may make, from the reference's float64 numbers."""

    def __init__(self, x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, tau: Tensor, seed: Tensor | None):
        self.x, self.keys, self.values = x.double(), keys.double(), values.double()
        self.size = len(keys)
        self.inverse = 1 / tau.double()
        self.logits = torch.addmm(bias.double(), self.x, self.keys.T)
        rows = torch.arange(len(x))
        self.noisy = self.logits + (0.0 if seed is None else noise.gumbel_noise(seed, rows, self.size))
        terms = x.shape[1] + 5  # D products, their sum, the bias, and the change of the base with its bias
        largest = torch.addmm(bias.double().abs(), self.x.abs(), self.keys.abs().T).amax(-1)
        self.logit = (terms * U + PRODUCT) * largest
        # The sums' common shift is the largest noisy logit. It is added and subtracted again.
        self.shift = 0.0 if seed is None else 8 * U * LARGEST_NOISE
        self.noisy_logit = self.logit + (0 if seed is None else NOISE * (1 + LARGEST_NOISE))
        # Relative, of y and p: the exponent in numerator and denominator, which exp, the sum over K codes and the
        # quotient round; twice, for what is of second order.
        sums = (2 * self.size + 16) * U
        self.y = 2 * (2 * self.noisy_logit * self.inverse + sums)
        self.p = 2 * (2 * self.logit + sums)

    def value(self) -> Tensor:
        return (self.y + self.size * U + PRODUCT)[:, None] * self.values.abs().amax(0)

    def divergence(self) -> Tensor:
        """Σ p ln p + ln K: each logit moves it by at most p |ln p + entropy|, in sum 2 ln K."""
        return self.p * (2 * math.log(self.size) + 1) + self.shift

    def log_sums(self) -> Tensor:
        plain, scaled = self.logits.logsumexp(-1), (self.noisy * self.inverse).logsumexp(-1)
        errors = [self.p + 4 * U * plain.abs() + self.shift, self.y + 4 * U * scaled.abs()]
        return torch.stack(errors, -1)

    def gradients(self, g: Tensor, c: Tensor) -> list[Tensor]:
        """The sums of magnitudes that the gradients are made of, times the largest relative error of a term."""
        g, c = g.double(), c.double()
        y, log_p = (self.noisy * self.inverse).softmax(-1), self.logits.log_softmax(-1)
        p = log_p.exp()
        largest = self.values.abs().amax(0)
        # |g|·|value_k| + |g|·|value|, and |ln p_k| + |Σ p ln p|
        gain = g.abs() @ (self.values.abs() + largest).T
        slope = y * gain * self.inverse + c.abs()[:, None] * p * (log_p.abs() + math.log(self.size) + 1)
        # Besides those of y and p: the saved log-sums' rounding, and the sums over D, V, K and N.
        saved = 4 * U * self.log_sums_size()
        sums = (len(self.x) + self.size + self.x.shape[1] + self.values.shape[1] + 16) * U + 3 * PRODUCT
        # An absolute error of ln p or its mean is one of |ln p| + … + 1.
        relative = (self.y + 2 * self.p * (1 + 2 * math.log(self.size)) + saved + 2 * sums)[:, None]
        slope, y = relative * slope, relative * y
        return [slope @ self.keys.abs(), slope.T @ self.x.abs(), slope.sum(0), y.T @ g.abs()]

    def log_sums_size(self) -> Tensor:
        sizes = [self.logits.abs().amax(-1), (self.noisy * self.inverse).abs().amax(-1)]
        return sizes[0] + sizes[1] + 2 * math.log(self.size)


def assert_within(result: Tensor, expected: Tensor, bound: Tensor) -> None:
    assert result.shape == expected.shape
    # A result in 16 bits is rounded once more; the interpreter cuts bfloat16 off.
    rounding = 2 * torch.finfo(result.dtype).eps * expected.double().abs() + UNDERFLOW
    excess = (result.cpu().double() - expected.double()).abs() - (bound + rounding)
    assert (excess <= 0).all(), excess.max()


def assert_soft(inputs: list[Tensor | None], gradients: list[Tensor]) -> None:
    doubles = [t.double() if t is not None and t.is_floating_point() else t for t in inputs]
    bounds = Bounds(*inputs)  # type: ignore[arg-type]
    results = soft_codes(*on_device(inputs))  # type: ignore[arg-type]
    expected = soft.soft_codes(*doubles)  # type: ignore[arg-type]
    value, indices, divergence, log_sums = results
    assert {t.dtype for t in (value, divergence, log_sums)} == {torch.float32}
    assert_within(value, expected[0], bounds.value())
    assert_within(divergence, expected[2], bounds.divergence())
    assert_within(log_sums, expected[3], bounds.log_sums())
    chosen = bounds.noisy.gather(1, indices.cpu()[:, None])[:, 0]
    assert (bounds.noisy.amax(-1) - chosen <= 2 * bounds.noisy_logit).all()

    moved = on_device([*gradients, *inputs])
    slopes = soft_codes_backward(*moved, value, divergence, log_sums)  # type: ignore[arg-type]
    right = soft.soft_codes_backward(*gradients, *doubles, expected[0], expected[2], expected[3])  # type: ignore[arg-type]
    allowed = bounds.gradients(*gradients)
    for slope, target, bound, tensor in zip(slopes, right, allowed, inputs[:4], strict=True):
        assert tensor is not None
        assert slope.dtype == tensor.dtype
        assert_within(slope, target, bound)


@pytest.mark.parametrize(
    ("n", "size", "d", "width"),
    [(1, 1, 1, 1), (70, 37, 5, 3), (3, 100, 40, 130), (130, 9, 150, 20), (17, 66, 16, 64), (33, 2, 1, 33)],
)
@pytest.mark.parametrize("seed", [None, 2**62 - 12345, -3])
def test_soft_codes_and_gradients(n: int, size: int, d: int, width: int, seed: int | None) -> None:
    """One tile and several of rows, codes, channels of x and channels of values; any 64 bits of seed."""
    assert_soft(*problem(n, size, d, width, seed))


@pytest.mark.parametrize("groups", [True, False])
@pytest.mark.parametrize(("n", "size", "d", "width"), [(130, 70, 5, 3), (3, 40, 40, 130), (20, 33, 150, 65)])
def test_tiles_of_any_device(
    n: int, size: int, d: int, width: int, groups: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (forward, row_gradients, code_gradients):
        monkeypatch.setattr(module, "has_warp_groups", lambda _: groups)
    assert_soft(*problem(n, size, d, width, 11))


@examples(10)
@given(
    n=st.integers(1, 70),
    size=st.integers(1, 70),
    d=st.integers(1, 20),
    width=st.integers(1, 20),
    tau=st.sampled_from([0.1, 1.0, 4.0]),
    noisy=st.booleans(),
    scale=st.sampled_from([0.01, 1.0, 10.0]),
)
def test_any_shape_temperature_and_scale(
    n: int, size: int, d: int, width: int, tau: float, noisy: bool, scale: float
) -> None:
    inputs, gradients = problem(n, size, d, width, 7 if noisy else None)
    inputs[0], inputs[4] = inputs[0] * scale, torch.tensor(tau)
    assert_soft(inputs, gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits(dtype: torch.dtype) -> None:
    assert_soft(*problem(20, 40, 6, 5, 3, dtype))


def test_strides_and_temperature_of_another_dtype() -> None:
    inputs, gradients = problem(20, 40, 6, 5, 3)
    inputs[:4] = [t.T.contiguous().T if t.dim() == 2 else t for t in inputs[:4]]
    inputs[4] = inputs[4].double()
    gradients = [gradients[0].T.contiguous().T, torch.ones(()).expand(20)]
    assert_soft(inputs, gradients)


@pytest.mark.parametrize("size", [5, 40, 130])
def test_ties_go_to_the_lowest_index(size: int) -> None:
    """Integers, whose logits are exact; equal codes within a tile and in others."""
    draw = torch.Generator().manual_seed(size)
    x = torch.randint(-2, 3, (50, 3), generator=draw).float()
    keys = torch.randint(-1, 2, (size, 3), generator=draw).float()
    inputs = [x, keys, torch.zeros(size), keys, torch.tensor(0.5), None]
    expected = soft.soft_codes(*inputs)[1]
    assert torch.equal(soft_codes(*on_device(inputs))[1].cpu(), expected)


def test_uniform_and_certain_rows() -> None:
    """No divergence, and all of it: ln K; logits of any size cancel."""
    x, keys = torch.tensor([[0.0], [1.0]]), torch.zeros(40, 1)
    keys[3] = 1000.0
    inputs = [x, keys, torch.full((40,), 1e4), keys, torch.tensor(1.0), None]
    _, indices, divergence, _ = (t.cpu() for t in soft_codes(*on_device(inputs)))
    assert indices.tolist() == [0, 3]
    assert divergence[0].abs() <= 64 * U * math.log(40)
    assert divergence[1] == pytest.approx(math.log(40), rel=64 * U)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of arithmetic with NaN
def test_broken_rows_stay_alone() -> None:
    inputs, _ = problem(40, 40, 6, 5, 3)
    whole = [t.cpu() for t in soft_codes(*on_device(inputs))]
    inputs[0] = inputs[0].clone()
    inputs[0][7] = torch.nan
    inputs[0][9, 2] = torch.inf
    results = [t.cpu() for t in soft_codes(*on_device(inputs))]
    others = [row for row in range(40) if row not in (7, 9)]
    for result, before in zip(results, whole, strict=True):
        assert torch.equal(result[others], before[others])
    value, indices, divergence, log_sums = results
    assert indices[7] == 0  # as torch.argmax
    assert value[7].isnan().all()
    assert divergence[[7, 9]].isnan().all()
    assert log_sums[7].isnan().all()
    assert 0 <= indices[9] < 40


def test_a_code_of_no_probability() -> None:
    """A bias of −∞, for some codes or a whole tile of them."""
    inputs, gradients = problem(20, 150, 4, 3, 3)
    alive = torch.arange(70, 140)
    inputs[2][:70] = inputs[2][140:] = -torch.inf
    value, indices, divergence, log_sums = soft_codes(*on_device(inputs))
    assert ((indices >= 70) & (indices < 140)).all()
    kept = [t[alive] if i in (1, 2, 3) else t for i, t in enumerate(inputs)]
    kept[5] = None
    inputs[5] = None
    fewer = soft.soft_codes(*kept)
    value, _, divergence, log_sums = soft_codes(*on_device(inputs))
    bounds = Bounds(*kept)
    assert_within(value, fewer[0], bounds.value())
    assert_within(divergence, fewer[2] + math.log(150 / 70), bounds.divergence() + 4 * U)
    slopes = soft_codes_backward(*on_device([*gradients, *inputs]), value, divergence, log_sums)
    assert all(slope.isfinite().all() for slope in slopes)
    assert (slopes[1].cpu()[:70] == 0).all()


@pytest.mark.parametrize("seed", [None, 5])
def test_empty_batch(seed: int | None) -> None:
    inputs, gradients = problem(0, 7, 3, 2, seed)
    results = soft_codes(*on_device(inputs))
    assert [tuple(t.shape) for t in results] == [(0, 2), (0,), (0,), (0, 2)]
    slopes = soft_codes_backward(*on_device([*gradients, *inputs]), results[0], results[2], results[3])
    assert [tuple(t.shape) for t in slopes] == [(0, 3), (7, 3), (7,), (7, 2)]
    assert all((slope == 0).all() for slope in slopes)


def test_bit_equal_from_run_to_run() -> None:
    inputs, gradients = (on_device(t) for t in problem(90, 40, 6, 5, 3))
    runs = []
    for _ in range(2):
        value, indices, divergence, log_sums = soft_codes(*inputs)
        slopes = soft_codes_backward(*gradients, *inputs, value, divergence, log_sums)
        runs.append([value, indices, divergence, log_sums, *slopes])
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


@pytest.mark.parametrize("name", ["x", "keys", "bias", "values"])
def test_float64_is_refused(name: str) -> None:
    inputs, gradients = problem(3, 4, 2, 2, None)
    place = ["x", "keys", "bias", "values"].index(name)
    inputs[place] = inputs[place].double()
    with pytest.raises(TypeError, match=f"{name} is float64, which is not supported by the triton implementation"):
        soft_codes(*inputs)
    with pytest.raises(TypeError, match=f"{name} is float64"):
        soft_codes_backward(*gradients, *inputs, gradients[0], gradients[1], gradients[0])


# noise


@triton.jit
def _noise_kernel(
    seed_ptr, words_ptr, noise_ptr, row, first, N: tl.constexpr, K: tl.constexpr, WARPS: tl.constexpr
):  # type: ignore[no-untyped-def]
    seed = tl.load(seed_ptr)
    places = tl.arange(0, N)[:, None] * K + code_order(tl.arange(0, K))[None, :]
    tl.store(words_ptr + places, noise_words(seed, row, first, N, K, WARPS).to(tl.int64))
    binary = binary_gumbel_tile(seed, row, first, N, K, WARPS)
    tl.store(noise_ptr + places, (binary - LOG_2_OF_LOG_2) * LN_2)


@example(seed=273071, row=12345, first=32, shape=(64, 32, 4))
@examples(10)
@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    row=st.sampled_from([0, 1, 12345, 2**31 - 3, 2**32 - 128]),
    first=st.sampled_from([0, 16, 32, 2**20]),
    shape=st.sampled_from([(16, 16, 1), (64, 32, 4), (64, 64, 8), (128, 32, 4), (128, 32, 8)]),
)
def test_noise_is_the_reference_s(seed: int, row: int, first: int, shape: tuple[int, int, int]) -> None:
    """Words bit for bit; the noise within the bound of `binary_gumbel_tile`."""
    n, size, warps = shape
    words = torch.empty(n, size, dtype=torch.int64, device=device())
    drawn = torch.empty(n, size, device=device())
    place = torch.tensor(seed, device=device())
    _noise_kernel[(1,)](place, words, drawn, row, first, n, size, warps, num_warps=warps)
    rows, key = (
        torch.arange(row, row + n),
        [torch.tensor(seed) & noise.WORD, (torch.tensor(seed) >> 32) & noise.WORD],
    )
    quads = torch.arange(first // 4, (first + size) // 4)
    zero = torch.zeros(n, size // 4, dtype=torch.int64)
    expected = torch.stack(noise.philox([zero + quads, zero + rows[:, None], zero, zero], key), -1).flatten(1)
    assert torch.equal(words.cpu(), expected)
    exact = -(-((expected >> 9).double().add(0.5) * 2.0**-23).log()).log()
    assert ((drawn.cpu() - exact).abs() <= NOISE * (1 + exact.abs())).all()


# the highest score


@examples(10)
@given(data=st.data(), n=st.integers(0, 40), size=st.integers(1, 70), d=st.integers(1, 20))
def test_highest_score_with_ties(data: st.DataObject, n: int, size: int, d: int) -> None:
    """Small integers, whose scores are exact: many are equal."""
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    tensors = [torch.randint(-2, 3, shape, generator=draw).float() for shape in [(n, d), (size, d), (size,)]]
    assert torch.equal(highest_score(*(t.to(device()) for t in tensors)).cpu(), highest.highest_score(*tensors))


def test_highest_score_of_equal_sums_in_another_order() -> None:
    """Exactly equal scores whose float64 sums round differently are a tie."""
    x = torch.randn(200, 3, dtype=torch.float64).repeat(1, 2)
    keys = torch.tensor([[1.0, 1, 0, 0, 0, 1], [0, 0, 1, 1, 1, 0]], dtype=torch.float64)
    bias = torch.zeros(2, dtype=torch.float64)
    for order in ([0, 1], [1, 0]):
        indices = highest_score(*(t.to(device()) for t in (x, keys[order], bias)))
        assert (indices == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_highest_score(dtype: torch.dtype) -> None:
    """Normal scores lie further apart than 2E, so the index is the only right one; strides do not matter."""
    tensors = [torch.randn(*shape).to(dtype) for shape in [(40, 100), (100, 70), (70,)]]
    x, keys, bias = tensors[0], tensors[1].T, tensors[2]
    result = highest_score(*(t.to(device()) for t in (x, keys, bias)))
    assert torch.equal(result.cpu(), highest.highest_score(x, keys, bias))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of arithmetic with NaN
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_highest_score_of_broken_vectors(value: float) -> None:
    x, keys, bias = torch.randn(5, 3), torch.randn(40, 3), torch.randn(40)
    x[2] = value
    result = highest_score(*(t.to(device()) for t in (x, keys, bias))).cpu()
    assert torch.equal(result, highest.highest_score(x, keys, bias))
