"""The entropy of groups of bits over a batch: that of the written-out mean, exact, and without its table."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import quantizers
from benchmarks.allocations import largest_allocation
from quantizers import BSQ, LFQ
from quantizers.scalar.bits import bit_entropy
from quantizers.scalar.joint_entropy import DEFAULT_GROUP, LARGEST_GROUP, group_sizes, joint_entropy
from quantizers.scalar.published import PUBLISHED
from quantizers.training.regularizers import entropy_loss
from quantizers.training.schedules import CosineEntropy, ExponentialTemperature, LinearEntropy
from tests.cases import normal

EPS = torch.finfo(torch.float64).eps

seeds = st.integers(0, 2**31)
splits = st.sampled_from([(1,), (1, 1, 1, 1), (2, 2), (3, 2, 2), (4, 4), (3, 3, 3), (7, 6), (10,)])
rows = st.integers(1, 20)
every_method = pytest.mark.parametrize("method", [LFQ, BSQ])


def all_valid(count: int) -> Tensor:
    return torch.ones(count, dtype=torch.bool)


def with_gradient(logits: Tensor, valid: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    logits = logits.detach().clone().requires_grad_()
    value = joint_entropy(logits, valid, sizes)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def tables(logits: Tensor, sizes: tuple[int, ...]) -> list[Tensor]:
    """p_n of each group as a softmax over all its patterns: [N, 2^b]."""
    found = []
    for part in logits.split(sizes, -1):
        codes = torch.arange(2 ** part.shape[-1])[:, None] >> torch.arange(part.shape[-1]) & 1
        found.append((part @ codes.to(part.dtype).T).softmax(-1))  # a bit that is zero adds no logit
    return found


# What it is


@given(seed=seeds, count=rows, sizes=splits, spread=st.sampled_from([0.1, 1.0, 5.0]))
def test_it_is_the_entropy_of_the_mean_of_all_patterns(
    seed: int, count: int, sizes: tuple[int, ...], spread: float
) -> None:
    logits = (spread * normal(seed, count, sum(sizes))).requires_grad_()
    expected = sum(torch.special.entr(p.mean(0)).sum() for p in tables(logits, sizes))
    (gradient,) = torch.autograd.grad(expected, logits)
    value, actual = with_gradient(logits, all_valid(count), sizes)
    # Each of 2^10 probabilities is right to fewer than 100 eps, and is multiplied by a logarithm below 2⁹.
    tolerance = 100 * 2**9 * EPS
    assert abs(value - expected) <= tolerance
    assert (actual - gradient).abs().max() <= tolerance


@every_method
@given(
    seed=seeds,
    count=rows,
    bits=st.integers(1, 9),
    temperature=st.sampled_from([0.1, 1.0, 3.0]),
    diversity=st.sampled_from([0.0, 1.0, 2.0]),
)
def test_one_group_is_the_entropy_loss_of_the_codebook(
    method: type[LFQ] | type[BSQ], seed: int, count: int, bits: int, temperature: float, diversity: float
) -> None:
    """`entropy_loss`, which goes by another way over all N × K probabilities; also with rows that do not count."""
    options = {"entropy_weight": 1.0, "commitment_weight": 0.0, "group_bits": bits}
    quantizer = method(bits, 2**bits, temperature=temperature, diversity=diversity, **options).double()
    z, mask = normal(seed, count, bits).requires_grad_(), normal(seed + 1, count) > -0.5
    loss = quantizer(z, mask).loss
    (actual,) = torch.autograd.grad(loss, z)
    u = z if method is LFQ else z / z.norm(dim=-1, keepdim=True)
    codes = quantizer.codebook.double().sign() * (1.0 if method is LFQ else bits**-0.5)
    expected = entropy_loss(u, codes, mask, temperature, diversity)
    (gradient,) = torch.autograd.grad(expected, z)
    # As above, with logits up to 4 · 5/T = 200, and 1/‖z‖ from the sphere.
    tolerance = 2.0**25 * EPS
    assert abs(loss - expected) <= tolerance
    assert (actual - gradient).abs().max() <= 2**12 * tolerance


@given(seed=seeds, count=rows, bits=st.integers(1, 20), spread=st.sampled_from([0.1, 3.0, 30.0]))
def test_groups_of_one_bit_are_the_bits_entropies(seed: int, count: int, bits: int, spread: float) -> None:
    """The sum over bits of the entropy of mean_n σ(ℓ_n), by its rarer side."""
    logits = (spread * normal(seed, count, bits)).requires_grad_()
    rare = torch.minimum(logits.sigmoid().mean(0), (-logits).sigmoid().mean(0))
    expected = -(rare * rare.log() + (1 - rare) * torch.log1p(-rare)).sum()
    (gradient,) = torch.autograd.grad(expected, logits)
    value, actual = with_gradient(logits, all_valid(count), (1,) * bits)
    assert abs(value - expected) <= 100 * bits * EPS
    assert (actual - gradient).abs().max() <= 2**9 * EPS


@given(seed=seeds, count=rows, spread=st.sampled_from([0.1, 1.0, 10.0]))
def test_larger_groups_see_more(seed: int, count: int, spread: float) -> None:
    """A joint entropy is at most the sum of its parts'; they are equal for one vector, of independent bits."""
    logits = spread * normal(seed, count, 12)
    by_size = [
        float(joint_entropy(logits, all_valid(count), (12 // groups,) * groups)) for groups in (12, 6, 2, 1)
    ]
    for smaller, larger in itertools.pairwise(by_size):
        assert larger <= smaller + 2**20 * EPS
    alone = joint_entropy(logits[:1], all_valid(1), (4, 4, 4))
    assert alone == pytest.approx(float(bit_entropy(logits[:1]).sum()), abs=2**20 * EPS)


# Copies


@every_method
@pytest.mark.parametrize("group_bits", [2, 5, 10, None])
def test_copies_of_a_bit_cost(method: type[LFQ] | type[BSQ], group_bits: int | None) -> None:
    """Balanced bits that copy each other use 2 of 1024 codes, independent ones all. Bit by bit they are equal."""
    generator = torch.Generator().manual_seed(0)
    independent = torch.randint(2, (4096, 10), generator=generator).double() * 6 - 3
    copied = independent[:, :1].expand(-1, 10)
    options = {"entropy_weight": 1.0, "commitment_weight": 0.0}
    losses = [float(method(10, 1024, group_bits=group_bits, **options)(z).loss) for z in (copied, independent)]
    groups = 10 // (group_bits or 10)
    assert losses[0] > losses[1] + (10 - groups) * 0.5 * math.log(2)
    blind = [float(method(10, 1024, group_bits=1, **options)(z).loss) for z in (copied, independent)]
    assert blind[0] == pytest.approx(blind[1], abs=0.01)  # 4096 throws of ten coins are balanced to 1/64


@every_method
def test_the_gradient_drives_copies_apart(method: type[LFQ] | type[BSQ]) -> None:
    """From bits that nearly copy each other, descent on the loss reaches most codes; bit by bit it does not."""
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(256, 1, generator=generator) + 0.05 * torch.randn(256, 6, generator=generator)
    used = {}
    for group_bits in (1, 6):
        quantizer = method(6, 64, entropy_weight=1.0, commitment_weight=0.1, group_bits=group_bits)
        z = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([z], 0.05)
        for _ in range(100):
            optimizer.zero_grad()
            quantizer(z).loss.backward()
            optimizer.step()
        used[group_bits] = len(quantizer.encode(z).unique())
    assert used[6] >= 48
    assert used[1] <= used[6] / 2


# What does not matter


@given(seed=seeds, count=rows, sizes=splits)
def test_the_order_of_rows_and_of_groups_does_not_matter(seed: int, count: int, sizes: tuple[int, ...]) -> None:
    logits = normal(seed, count, sum(sizes))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator)
    value, gradient = with_gradient(logits, all_valid(count), sizes)
    other, other_gradient = with_gradient(logits[order], all_valid(count), sizes)
    assert other == pytest.approx(float(value), abs=2**20 * EPS)
    torch.testing.assert_close(other_gradient, gradient[order], rtol=0, atol=2**20 * EPS)
    if len({*sizes}) == 1:
        parts = logits.split(sizes, -1)
        swapped = torch.cat([parts[i].flip(-1) for i in torch.randperm(len(parts), generator=generator)], -1)
        assert joint_entropy(swapped, all_valid(count), sizes) == pytest.approx(float(value), abs=2**20 * EPS)


@given(seed=seeds, count=rows, sizes=splits, other=st.sampled_from([0.0, -3.0, 1e30, math.inf]))
def test_rows_that_do_not_count_do_not_matter(seed: int, count: int, sizes: tuple[int, ...], other: float) -> None:
    logits, valid = normal(seed, count, sum(sizes)), normal(seed + 1, count) > 0
    value, gradient = with_gradient(logits.masked_fill(~valid[:, None], other), valid, sizes)
    expected, expected_gradient = with_gradient(logits[valid], all_valid(int(valid.sum())), sizes)
    assert value == pytest.approx(float(expected), abs=2**20 * EPS)
    torch.testing.assert_close(gradient[valid], expected_gradient, rtol=0, atol=2**20 * EPS)
    assert not gradient[~valid].any()


# Numbers


@given(
    sizes=splits,
    values=st.lists(
        st.sampled_from([0.0, -0.0, 1e-45, 20.0, 88.0, 105.0, 1e4, 3e38, math.inf]), min_size=1, max_size=6
    ),
    seed=seeds,
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_any_logits_have_a_finite_gradient(
    sizes: tuple[int, ...], values: list[float], seed: int, dtype: torch.dtype
) -> None:
    """Probabilities that underflow contribute nothing, neither by value nor by gradient."""
    signs = normal(seed, len(values), sum(sizes)).sign()
    logits = (torch.tensor(values, dtype=torch.float64)[:, None] * signs).to(dtype)
    value, gradient = with_gradient(logits, all_valid(len(values)), sizes)
    rounding = 100 * torch.finfo(dtype).eps
    assert -rounding <= value <= sum(sizes) * math.log(2) + rounding
    assert gradient.isfinite().all()


@given(seed=seeds, sizes=splits, certainty=st.sampled_from([5.0, 15.0, 30.0, 60.0]))
def test_float32_keeps_the_digits_of_near_certainty(seed: int, sizes: tuple[int, ...], certainty: float) -> None:
    """An entropy of 10⁻²⁵ is as exact as one of 1, where 1 − p would be zero."""
    bits = sum(sizes)
    logits = (certainty + normal(seed, 8, bits)) * normal(seed + 1, bits).sign()
    exact = joint_entropy(logits, all_valid(8), sizes)
    value = joint_entropy(logits.float(), all_valid(8), sizes)
    # A logit below 70 is rounded by up to 2⁻¹⁸, and its probability by that share; ten bits' are multiplied.
    assert abs(float(value) - float(exact)) <= 2.0**-14 * float(exact)


def test_an_even_mean_over_many_patterns_is_the_largest_entropy() -> None:
    """2¹⁸ equal probabilities in float32, all but one of which sum to nearly one."""
    value, gradient = with_gradient(torch.zeros(3, 18), all_valid(3), (18,))
    assert value == pytest.approx(18 * math.log(2), rel=1e-6)
    assert gradient.abs().max() <= 1e-4


@pytest.mark.parametrize("sizes", [(12,), (6, 6)])
def test_no_table_of_vectors_times_patterns_is_made(sizes: tuple[int, ...]) -> None:
    """Nor of a sixteenth of it, in forward and backward; the mean of the tables is one."""
    count = 2048
    logits = normal(0, count, sum(sizes), dtype=torch.float32)
    written_out = largest_allocation(lambda: tables(logits, sizes))
    assert written_out >= 4 * count * 2 ** sizes[0]
    assert largest_allocation(lambda: with_gradient(logits, all_valid(count), sizes)) <= written_out / 4


# Sizes of groups


@given(bits=st.integers(1, 63))
def test_the_default_groups_are_few_and_even(bits: int) -> None:
    sizes = group_sizes(bits, None)
    assert sum(sizes) == bits
    assert max(sizes) <= DEFAULT_GROUP
    assert (len(sizes) - 1) * DEFAULT_GROUP < bits
    assert max(sizes) - min(sizes) <= 1
    assert list(sizes) == sorted(sizes, reverse=True)


@every_method
def test_wrong_groups_are_named(method: type[LFQ] | type[BSQ]) -> None:
    assert method(4, 2**12, group_bits=3).group_sizes == (3, 3, 3, 3)
    with pytest.raises(
        ValueError, match="group_bits is 5, expected a divisor of 12, the number of bits in a code"
    ):
        method(4, 2**12, group_bits=5)
    with pytest.raises(ValueError, match="group_bits is 0, expected an integer of at least 1"):
        method(4, 2**12, group_bits=0)
    with pytest.raises(ValueError, match=r"group_bits is 30, expected at most 24: .* 64 MiB in float32 at 24"):
        method(4, 2**60, group_bits=30)
    assert method(4, 2**48, group_bits=LARGEST_GROUP).group_sizes == (24, 24)


# Published settings


def written_out(z: Tensor, codes: Tensor, inverse_temperature: float, group_bits: int) -> tuple[Tensor, Tensor]:
    """mean_n Σ_g H(p_ng) and Σ_g H(mean_n p_ng), with softmax(2 z·c · inverse_temperature) for each group."""
    parts = zip(z.split(group_bits, -1), codes.split(group_bits, -1), strict=True)
    each, mean = [], []
    for part, of_codes in parts:
        p = (2 * part @ of_codes.unique(dim=0).T * inverse_temperature).softmax(-1)
        each.append(torch.special.entr(p).sum(-1).mean())
        mean.append(torch.special.entr(p.mean(0)).sum())
    return torch.stack(each).sum(), torch.stack(mean).sum()


@pytest.mark.parametrize(
    ("model", "method", "bits", "inverse_temperature", "scale", "weight", "commitment"),
    [
        ("bsq-vit", BSQ, 18, 1.0, 18**-0.5, 0.1, 0.0),
        ("bsq-vit-bitwise", BSQ, 18, 1.0, 18**-0.5, 0.1, 0.0),
        ("open-magvit2", LFQ, 18, 100.0, 1.0, 0.1, 0.25),
        ("wetok", LFQ, 32, 100.0, 1.0, 0.1 / 4, 0.25),
        ("infinity", BSQ, 16, 100.0, 16**-0.5, 0.1 / 100, 0.25),
    ],
)
def test_published_settings_are_the_published_losses(
    model: str,
    method: type[LFQ] | type[BSQ],
    bits: int,
    inverse_temperature: float,
    scale: float,
    weight: float,
    commitment: float,
) -> None:
    options = PUBLISHED[model]
    quantizer = method(bits, 2**bits, **options).double()
    z = 0.05 * normal(5, 6, bits)
    size = options["group_bits"]
    patterns = torch.arange(2**size)[:, None] >> torch.arange(size) & 1
    codes = ((2 * patterns - 1).double() * scale).repeat(1, bits // size)
    u = z if method is LFQ else z / z.norm(dim=-1, keepdim=True)
    each, mean = written_out(u, codes, inverse_temperature, size)
    expected = weight * (each - mean) + commitment * (u - scale * u.sign()).square().mean()
    assert float(quantizer(z).loss) == pytest.approx(float(expected), rel=1e-9)


# Schedules


@pytest.mark.parametrize("schedule", [LinearEntropy, CosineEntropy])
def test_the_entropy_weight_follows_a_schedule(schedule: type[LinearEntropy] | type[CosineEntropy]) -> None:
    """In every quantizer of a module; the loss without a commitment is proportional to it."""
    model = quantizers.create("residual", 4, 16, quantizer="bsq", num_quantizers=2)
    x, losses = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), []
    steps = schedule(model, start=0.3, end=0.1, steps=4)
    for _ in range(6):
        losses.append(float(model.eval()(x).loss))
        steps.step()
    assert losses == sorted(losses)  # negative, and smaller and smaller
    assert losses[0] == pytest.approx(3 * losses[4])
    assert losses[2] == pytest.approx(2 * losses[4])
    assert losses[5] == losses[4]
    with pytest.raises(
        ValueError, match="module is a VectorQuantizer, in which no quantizer has an entropy_weight"
    ):
        schedule(quantizers.VectorQuantizer(4, 8), start=0.3, end=0.1, steps=4)
    with pytest.raises(ValueError, match=r"entropy weights are 0\.3 and inf, expected finite numbers"):
        schedule(model, start=0.3, end=math.inf, steps=4)


def test_the_temperature_follows_a_schedule() -> None:
    quantizer = BSQ(4, 16)
    schedule = ExponentialTemperature(quantizer, start=1.0, end=0.25, steps=2)
    assert [quantizer.temperature, schedule.step(), schedule.step()] == pytest.approx([1.0, 0.5, 0.25])
    assert quantizer.temperature == pytest.approx(0.25)
