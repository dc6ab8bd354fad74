"""FSQ's arithmetic: levels, digits and indices, up to 2⁶³ codes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers import FSQ, ResidualQuantizer, configuration, create, levels_for, rebuild
from quantizers.kernels.levels.bound import bound_levels
from quantizers.monitoring.metrics import code_counts, entropy
from quantizers.scalar.fsq import SLOPES
from quantizers.scalar.symmetric import SoftClamp

level_lists = st.lists(st.integers(2, 17), min_size=1, max_size=6)
bounds = st.sampled_from(["tanh", "ifsq"])


@given(levels=level_lists, seed=st.integers(0, 2**31), bound=bounds, scale=st.sampled_from([0.1, 1.0, 100.0]))
def test_codes_are_on_the_grid_and_indices_count_it(
    levels: list[int], seed: int, bound: str, scale: float
) -> None:
    """value·⌊L/2⌋ is an integer in [−⌊L/2⌋, L − 1 − ⌊L/2⌋], and Σ digit·Π L is the index."""
    quantizer = FSQ(len(levels), levels, bound=bound)
    z = scale * torch.randn(50, len(levels), generator=torch.Generator().manual_seed(seed))
    quantized, indices, loss = quantizer(z)
    assert loss == 0
    half = torch.tensor([count // 2 for count in levels])
    digits = (quantized * half).round() + half
    torch.testing.assert_close((digits - half) / half, quantized, rtol=0, atol=0)
    assert ((digits >= 0) & (digits < torch.tensor(levels))).all()
    for row, index in zip(digits.long().tolist(), indices.tolist(), strict=True):
        assert index == sum(digit * math.prod(levels[:i]) for i, digit in enumerate(row))


@given(levels=st.lists(st.integers(2, 9), min_size=1, max_size=4), bound=bounds)
def test_codebook_is_a_bijection(levels: list[int], bound: str) -> None:
    """All K codes differ, and each is the code of its own value: a codebook that uses all of its codes."""
    quantizer = FSQ(len(levels), levels, bound=bound)
    codebook = quantizer.codebook
    assert len(codebook) == math.prod(levels)
    assert len(codebook.unique(dim=0)) == len(codebook)
    assert codebook.abs().max() <= 1
    slope = 0.8 if bound == "ifsq" else 1.0
    half = torch.tensor([float(count // 2) for count in levels]).double()
    steps = torch.tensor([(count - 1) / 2 for count in levels]).double() * 1.001
    offset = torch.tensor([0.5 * (count % 2 == 0) for count in levels]).double()
    shift = torch.atanh(torch.where(torch.tensor(levels) > 2, offset / steps, 0.0))
    inverse = (torch.atanh((codebook.double() * half + offset) / steps) - shift) / slope
    assert torch.equal(quantizer.encode(inverse), torch.arange(len(codebook)))


@given(data=st.data())
def test_indices_are_exact_up_to_the_largest_codebooks(data: st.DataObject) -> None:
    levels = data.draw(
        st.sampled_from(
            [[2] * 63, [8] * 21, [2**24, 2**24, 2**15], [7] * 22, [3] * 39, [5, 8] * 11, [1000, 999] * 3]
        )
    )
    assert math.prod(levels) <= 2**63
    quantizer = FSQ(len(levels), levels).double()
    digits = [data.draw(st.integers(0, count - 1)) for count in levels]
    index = sum(digit * math.prod(levels[:i]) for i, digit in enumerate(digits))
    value = quantizer.decode(torch.tensor([index]))
    expected = [(digit - count // 2) / (count // 2) for digit, count in zip(digits, levels, strict=True)]
    assert value[0].tolist() == expected


@pytest.mark.parametrize("levels", [[2**24], [2**24 - 1], [999], [1000], [1001], [5000]])
@pytest.mark.parametrize("bound", ["tanh", "ifsq"])
def test_many_levels_stay_within_range(levels: list[int], bound: str) -> None:
    """The paper's relative margin of 10⁻³ would reach past the last level from a thousand on."""
    quantizer = FSQ(1, levels, bound=bound)
    _, indices, _ = quantizer(torch.tensor([[-1e9], [1e9], [0.0]]))
    assert indices.tolist() == [0, levels[0] - 1, levels[0] // 2]


@given(levels=level_lists, seed=st.integers(0, 2**31))
def test_narrow_bound_is_the_papers_first(levels: list[int], seed: int) -> None:
    """Codes and gradient, by its equation in float64; a channel near the edge of two levels may get either."""
    quantizer, counts = FSQ(len(levels), levels, bound="narrow"), torch.tensor(levels)
    z = (2 * torch.randn(50, len(levels), generator=torch.Generator().manual_seed(seed))).requires_grad_()
    quantized, _, _ = quantizer(z)
    exact = z.detach().double().requires_grad_()
    width = (counts - 1) / 2 * (1 - 1e-3)
    offset = torch.where(counts % 2 == 0, 0.5, 0.0).double()
    bounded = width * (exact + torch.tan(offset / width)).tanh() - offset
    # Seven roundings of a number of levels, at most 8, in float32; a half of a unit each.
    clear = (bounded - bounded.floor() - 0.5).abs() > 7 * 8 * torch.finfo(torch.float32).eps
    assert torch.equal((quantized * (counts // 2)).round()[clear], bounded.round()[clear].float())
    gradients = [torch.autograd.grad(values.sum(), of)[0] for values, of in ((quantized, z), (bounded, exact))]
    # 1 − tanh² loses digits in the tails: a few roundings of 1, times the slope, at most two levels of a unit.
    torch.testing.assert_close(gradients[0].double(), gradients[1] / (counts // 2), rtol=1e-5, atol=4e-6)


@given(levels=level_lists, bound=st.sampled_from(["tanh", "ifsq", "narrow"]))
def test_zero_is_the_middle(levels: list[int], bound: str) -> None:
    """The shift of even levels puts 0 on the grid: z = 0 gives the code 0."""
    quantized, _, _ = FSQ(len(levels), levels, bound=bound)(torch.zeros(1, len(levels)))
    assert (quantized == 0).all()


@given(
    levels=st.lists(st.integers(2, 9), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
    bound=st.sampled_from(["tanh", "ifsq", "narrow"]),
)
def test_digits_do_not_fall_as_z_rises(levels: list[int], seed: int, bound: str) -> None:
    quantizer = FSQ(len(levels), levels, bound=bound)
    z = torch.randn(20, len(levels), generator=torch.Generator().manual_seed(seed))
    assert (quantizer(z + 0.3).quantized >= quantizer(z).quantized).all()


@given(levels=st.lists(st.integers(3, 9), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_tanh_twice_is_the_bound_of_the_bound(levels: list[int], seed: int) -> None:
    """In float64: the value is the rounded bound of the bound, and its gradient has the slopes of both."""
    quantizer, counts = FSQ(len(levels), levels, bound="tanh_twice").double(), torch.tensor(levels)
    z = 2 * torch.randn(50, len(levels), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    first, second = z.clone().requires_grad_(), z.clone().requires_grad_()
    quantized, indices, _ = quantizer(first)

    def bounded(x: Tensor) -> Tensor:  # in levels, with a constant for each channel
        half = (counts - 1).double() / 2 * 1.001
        offset = 0.5 * (counts % 2 == 0)
        return half * torch.tanh(x + torch.atanh(offset / half)) - offset

    position = bounded(bounded(second))
    assert torch.equal(quantized, position.detach().round() / (counts // 2))
    assert torch.equal(quantizer.encode(z), indices)
    weight = torch.randn_like(z)
    (quantized * weight).sum().backward()
    (position / (counts // 2) * weight).sum().backward()
    torch.testing.assert_close(first.grad, second.grad)


@given(level=st.integers(3, 17))
def test_tanh_twice_reaches_all_levels_and_keeps_zero(level: int) -> None:
    quantizer = FSQ(1, [level], bound="tanh_twice")
    assert torch.equal(quantizer.encode(torch.linspace(-9, 9, 9001)[:, None]).unique(), torch.arange(level))
    assert quantizer(torch.zeros(1, 1)).quantized == 0


@given(levels=level_lists, seed=st.integers(0, 2**31), bound=st.sampled_from(["tanh", "ifsq", "clamp"]))
def test_symmetric_levels_stand_evenly_and_share_out_the_bound(levels: list[int], seed: int, bound: str) -> None:
    """In float64: the nearest of L values from −1 to 1, each but the edge's at most half a step from u."""
    quantizer, counts = FSQ(len(levels), levels, bound=bound, symmetric=True).double(), torch.tensor(levels)
    z = 2 * torch.randn(50, len(levels), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    first, second = z.clone().requires_grad_(), z.clone().requires_grad_()
    quantized, indices, _ = quantizer(first)
    edge = counts.double() / (counts - 1)
    u = second.clamp(-1, 1) if bound == "clamp" else edge * torch.tanh(SLOPES[bound] * second / edge)
    step = 2 / (counts - 1).double()
    eps = torch.finfo(torch.float64).eps
    assert ((quantized - u).abs() <= step / 2 + 8 * eps).all()
    digits = ((quantized + 1) / step).round()
    torch.testing.assert_close(quantized, digits * step - 1, rtol=0, atol=4 * eps)
    assert torch.equal(FSQ(len(levels), levels, symmetric=True).double().decode(indices), quantized)
    assert torch.equal(quantizer.encode(z), indices)
    quantized.sum().backward()
    u.sum().backward()
    torch.testing.assert_close(first.grad, second.grad)


@given(level=st.integers(3, 17), bound=st.sampled_from(["tanh", "ifsq", "clamp", "tanh_twice"]))
def test_symmetric_levels_are_each_others_negatives(level: int, bound: str) -> None:
    quantizer = FSQ(1, [level], bound=bound, symmetric=True)
    assert torch.equal(quantizer.codebook, -quantizer.codebook.flip(0))
    z = torch.linspace(-9, 9, 9000)[:, None]  # without 0, where the halves meet
    indices = quantizer.encode(z)
    assert torch.equal(indices, level - 1 - indices.flip(0))
    assert torch.equal(indices.unique(), torch.arange(level))


@pytest.mark.parametrize("level", [2, 3, 4, 5, 6, 8])
def test_between_two_symmetric_levels_the_upper_one_is_chosen(level: int) -> None:
    """By ⌊· + ½⌋, as in the models that have them; rounding to even would choose the lower of six levels at 0."""
    for bound in ("tanh", "clamp"):
        assert FSQ(1, [level], bound=bound, symmetric=True).encode(torch.zeros(1, 1)) == level // 2


def test_levels_of_one_grid_do_not_load_into_another() -> None:
    state = FSQ(2, [4, 4], symmetric=True).state_dict()
    with pytest.raises(RuntimeError, match=r"symmetric true and not \(none\)"):
        FSQ(2, [4, 4]).load_state_dict(state)


@pytest.mark.parametrize("levels", [[8, 5], [2, 3]])
def test_stages_of_symmetric_levels_cover_the_cells_of_those_before(levels: list[int]) -> None:
    """With the bound before them, and scales of L⁻ⁱ, n stages are one grid of Lⁿ levels: the value is within half
    of a cell of the bounded vector, and all cells are used."""
    count, stages = torch.tensor(levels), 3
    quantizer = ResidualQuantizer(
        2,
        [FSQ(2, levels, bound="clamp", symmetric=True) for _ in range(stages)],
        entry=SoftClamp(levels),
        scales=[[float(level) ** -stage for level in levels] for stage in range(stages)],
    ).double()
    z = 2 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    edge = count.double() / (count - 1)
    bounded = edge * torch.tanh(z / edge)
    quantized, _, _ = quantizer(z)
    cell = edge / count.double() ** stages  # half the width of a cell of the last stage
    assert ((quantized - bounded).abs() <= cell * (1 + 1e-6)).all()
    assert torch.equal(rebuild(configuration(quantizer)).double()(z).quantized, quantized)


def distance_from_uniform(bounded: Tensor) -> float:
    """Kolmogorov's: the largest gap between the distribution of values in [−1, 1] and the uniform one."""
    ranks = (torch.arange(len(bounded)) + 0.5) / len(bounded)
    return float((bounded.sort().values * 0.5 + 0.5 - ranks).abs().max())


def test_ifsq_bounds_gaussian_input_to_near_uniform() -> None:
    """The method's claim, as far as it holds: for the bounded value, by more than 10⁵ samples scatter."""
    z = torch.randn(100_000, 1)
    levels = torch.tensor([1001])  # odd and many: the bound itself, without shift
    gaps = {bound: distance_from_uniform(bound_levels(z, levels, slope)[:, 0]) for bound, slope in SLOPES.items()}
    scatter = 1.36 / 100_000**0.5  # Kolmogorov's 95 % point
    assert gaps["ifsq"] + scatter < gaps["tanh"] - scatter


def test_ifsq_is_the_more_even_where_levels_are_many() -> None:
    z = torch.randn(1_000_000, 1)
    bits = {bound: entropy(code_counts(FSQ(1, [257], bound=bound).encode(z), 257)) for bound in SLOPES}
    assert bits["ifsq"] > bits["tanh"] + 257 / 1_000_000  # what the entropy of as many samples scatters by


def test_at_few_levels_tanh_is_the_more_even() -> None:
    """What the class says against that claim: the outermost levels have half-wide bins."""
    z = torch.randn(100_000, 1)
    bits = {bound: entropy(code_counts(FSQ(1, [5], bound=bound).encode(z), 5)) for bound in SLOPES}
    assert bits["tanh"] > bits["ifsq"] + 0.05


def test_two_levels_are_balanced() -> None:
    """A threshold at zero, not at −3.8 where the paper's shift would put it."""
    indices = FSQ(1, [2]).encode(torch.randn(10_000, 1))
    assert abs(indices.double().mean() - 0.5) < 5 * 0.5 / 100  # five standard errors


@given(size=st.one_of(st.integers(2, 5000), st.integers(2, 2**63)))
def test_levels_for_comes_near(size: int) -> None:
    levels = levels_for(size)
    assert math.prod(levels) <= 2**63
    assert all(count >= (5 if size >= 25 else 2) for count in levels)
    # The widest gap between products lies between 8·8 and 5·5·5; at worst a size is in the middle of it.
    assert max(math.prod(levels) / size, size / math.prod(levels)) <= math.sqrt(125 / 64)
    FSQ(len(levels), levels)


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        (2**8, (8, 6, 5)),
        (2**10, (8, 5, 5, 5)),
        (2**12, (7, 5, 5, 5, 5)),
        (2**14, (8, 8, 8, 6, 5)),
        (2**16, (8, 8, 8, 5, 5, 5)),
    ],
)
def test_levels_for_are_the_papers(size: int, levels: tuple[int, ...]) -> None:
    assert levels_for(size) == levels


def test_a_codebook_too_large_to_build_says_so() -> None:
    quantizer = FSQ(64, [8] * 20)
    with pytest.raises(ValueError, match=r"has 1152921504606846976 codes: too large to build; decode"):
        _ = quantizer.codebook
    assert quantizer.decode(torch.tensor([0, 2**60 - 1])).shape == (2, 64)


def test_built_on_the_meta_device() -> None:
    with torch.device("meta"):
        quantizer = FSQ(2, [3, 5])
    quantizer = quantizer.to_empty(device="cpu")
    assert torch.equal(quantizer.codebook, FSQ(2, [3, 5]).codebook)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], "levels is empty"),
        ([5, 1], r"levels\[1\] is 1, expected an integer of at least 2"),
        ([5, 2.5], r"levels\[1\] is 2.5, expected an integer of at least 2"),
        ([2**25], "levels holds 33554432, expected at most 16777216"),
        ([2] * 64, r"give 18446744073709551616 codes, more than 2\*\*63"),
    ],
)
def test_wrong_levels_are_named(levels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FSQ(4, levels)


def test_wrong_options_are_named() -> None:
    expected = "'tanh', 'ifsq', 'clamp', 'tanh_twice' or 'narrow'"
    with pytest.raises(ValueError, match=f"bound is 'sigmoid', expected {expected}"):
        FSQ(4, [5], bound="sigmoid")
    with pytest.raises(ValueError, match=r"levels are \(5, 2\), expected at least 3 in each channel with bound"):
        FSQ(2, [5, 2], bound="tanh_twice")
    with pytest.raises(ValueError, match="symmetric is True, expected False with bound='narrow'"):
        FSQ(2, [5, 2], bound="narrow", symmetric=True)
    with pytest.raises(ValueError, match="either levels or codebook_size"):
        create("fsq", dim=4)
    with pytest.raises(ValueError, match="either levels or codebook_size"):
        create("fsq", dim=4, levels=[5], codebook_size=5)
    with pytest.raises(ValueError, match="codebook_size is 1, expected an integer of at least 2"):
        levels_for(1)
    with pytest.raises(ValueError, match=r"at most 2\*\*63"):
        levels_for(2**63 + 1)
