"""Shells of E8 and of the Leech lattice: their counts, angles and symmetries, and the search among them."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import quantizers
from quantizers.codebooks.lattices import e8_points, e8_shell, golay_code, leech_points, leech_shell
from tests.cases import normal

EPS = torch.finfo(torch.float32).eps
seeds = st.integers(0, 99)
shells = pytest.mark.parametrize(
    ("points", "products"),
    [
        (e8_points, {-8: 1, -4: 56, 0: 126, 4: 56, 8: 1}),
        (leech_points, {-32: 1, -16: 4600, -8: 47104, 0: 93150, 8: 47104, 16: 4600, 32: 1}),
    ],
    ids=["e8", "leech"],
)


def as_set(points: Tensor) -> Tensor:
    """The set of integer points with coordinates from −4 to 4, as sorted pairs of numbers in base 9."""
    digits, powers = points.long() + 4, 9 ** torch.arange(12)
    halves = [(half * powers[: half.shape[1]]).sum(1) for half in digits.split(12, dim=1)]
    return torch.unique(torch.stack(halves, dim=1), dim=0)


@shells
@settings(max_examples=5)
@given(data=st.data())
def test_inner_products_are_those_of_the_shell(
    points: Callable[[], Tensor], products: dict[int, int], data: st.DataObject
) -> None:
    """From every point the same numbers of others at the same angles: 60 degrees or more."""
    shell = points().float()  # integers, so that products are exact
    seen = shell @ shell[data.draw(st.integers(0, len(shell) - 1))]
    values, counts = seen.unique(return_counts=True)
    assert dict(zip(values.long().tolist(), counts.tolist(), strict=True)) == products


@shells
def test_points_are_distinct_of_one_norm_and_closed_under_negation(
    points: Callable[[], Tensor], products: dict[int, int]
) -> None:
    shell = points()
    assert len(shell) == sum(products.values()) == len(as_set(shell))
    assert (shell.long().square().sum(1) == max(products)).all()
    assert torch.equal(as_set(-shell), as_set(shell))


def test_the_golay_code_is_linear_and_self_dual_with_distance_8() -> None:
    words = golay_code().long()
    weights = words.sum(1).bincount(minlength=25)
    assert weights.nonzero().flatten().tolist() == [0, 8, 12, 16, 24]
    assert weights[[0, 8, 12, 16, 24]].tolist() == [1, 759, 2576, 759, 1]
    assert not ((words.double() @ words[:200].double().T) % 2).any()
    assert len(torch.unique(words, dim=0)) == 4096


@settings(max_examples=2)
@given(word=st.integers(0, 4095), shift=st.integers(1, 22))
def test_the_leech_shell_has_the_symmetries_of_its_code(word: int, shift: int) -> None:
    """Negation at the positions of a word, and the permutation that shifts the cyclic code of 23 bits."""
    shell = leech_points()
    assert torch.equal(as_set(shell * (1 - 2 * golay_code()[word])), as_set(shell))
    shifted = torch.cat([shell[:, :23].roll(shift, 1), shell[:, 23:]], dim=1)
    assert torch.equal(as_set(shifted), as_set(shell))


@pytest.mark.parametrize("shell", [e8_shell, leech_shell])
def test_unit_shells_have_norm_one_and_mean_zero_and_are_designs(shell: Callable[[], Tensor]) -> None:
    """Of strength 2 and 4 among others: Σ xxᵀ = K/D · I, and the mean of (u·x)⁴ is 3/(D(D + 2)) for any unit u."""
    codes = shell().double()
    size, channels = codes.shape
    assert shell().dtype == torch.float32
    assert ((codes.norm(dim=1) - 1).abs() <= EPS * channels**0.5).all()  # a rounding of each channel
    assert (codes.mean(0).abs() <= EPS).all()
    torch.testing.assert_close(codes.T @ codes / size, torch.eye(channels).double() / channels, rtol=0, atol=EPS)
    u = torch.nn.functional.normalize(normal(0, channels), dim=0)
    torch.testing.assert_close(
        (codes @ u).pow(4).mean().item(), 3 / (channels * (channels + 2)), rtol=4 * EPS, atol=0
    )


@pytest.mark.parametrize("lattice", ["e8", "leech"])
@settings(max_examples=5)
@given(seed=seeds)
def test_each_point_gets_its_own_index_at_any_length_and_a_near_vector_too(lattice: str, seed: int) -> None:
    """Halfway to its nearest neighbours, at 30 degrees, a point is still the nearest."""
    quantizer = quantizers.create("leech", 8 if lattice == "e8" else 24, lattice=lattice)
    points = quantizer.points
    chosen = torch.randint(len(points), (64,), generator=torch.Generator().manual_seed(seed))
    exact = points[chosen].float()
    noise = torch.nn.functional.normalize(normal(seed, *exact.shape, dtype=torch.float32), dim=1)
    near = exact + 0.49 * exact.norm(dim=1, keepdim=True) * noise  # sin 30° = 1/2
    for z in (exact, 1e-20 * exact, 1e20 * exact, near):
        assert torch.equal(quantizer.encode(z), chosen)


@settings(max_examples=5)
@given(seed=seeds)
def test_a_midpoint_gets_one_of_the_two_points_and_ties_go_to_the_lowest(seed: int) -> None:
    """Two neighbours at 60 degrees have no third as near to their middle; equal products are compared exactly."""
    quantizer = quantizers.create("leech", 24)
    points = quantizer.points.float()
    first = int(torch.randint(len(points), (), generator=torch.Generator().manual_seed(seed)))
    products = points @ points[first]
    second = int((products == 16).nonzero()[seed])
    middle = points[first] + points[second]
    index = int(quantizer.encode(middle))
    assert index in (first, second)
    exact = points @ middle
    assert exact[index] == exact.max()


@settings(max_examples=5)
@given(seed=seeds)
def test_the_search_finds_the_largest_product(seed: int) -> None:
    quantizer = quantizers.create("leech", 24)
    z = normal(seed, 20, 24, dtype=torch.float32)
    products = z.double() @ quantizer.points.double().T
    chosen = products.gather(1, quantizer.encode(z)[:, None])[:, 0]
    # In squared distances of unit vectors, which the search compares, roundings of 24 terms.
    slack = 2 * (24 + 2) * EPS * z.double().norm(dim=1) * 32**0.5
    assert (products.amax(1) - chosen <= slack).all()


def test_nothing_is_learned_and_no_loss_is_added() -> None:
    quantizer = quantizers.create("leech", 8, lattice="e8")
    x = normal(0, 30, 8, dtype=torch.float32).requires_grad_()
    out = quantizer(x)
    assert not list(quantizer.parameters())
    assert out.loss == 0
    out.quantized.sum().backward()
    assert x.grad.any()
    assert quantizer.points.dtype == torch.int8


def test_the_size_is_the_shell_s() -> None:
    assert quantizers.create("leech", 24).codebook_size == 196560
    assert quantizers.create("leech", 24, 196560).codebook_size == 196560
    with pytest.raises(ValueError, match=r"codebook_size is 1024, expected None or 196560, .* lattice='leech'"):
        quantizers.create("leech", 24, 1024)


def test_checkpoints_of_another_lattice_are_refused() -> None:
    other = quantizers.create("leech", 24).state_dict()
    with pytest.raises(RuntimeError, match='has lattice "leech" and not "e8"'):
        quantizers.create("leech", 8, lattice="e8").load_state_dict(other)


@pytest.mark.parametrize("shell", [e8_shell, leech_shell])
def test_a_shell_is_a_codebook_of_other_methods(shell: Callable[[], Tensor]) -> None:
    codes = shell()
    quantizer = quantizers.create("vq", codes.shape[1], codebook=codes, frozen=True, distance="cosine")
    assert torch.equal(quantizer.encode(codes[:100]), torch.arange(100))
