"""Shells of lattices: their counts, angles and symmetries, the choice of one, and the search among its points."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import quantizers
from quantizers import SphericalLattice
from quantizers.codebooks.lattices import (
    barnes_wall_points,
    barnes_wall_shell,
    e8_points,
    e8_shell,
    golay_code,
    leech_points,
    leech_shell,
    reed_muller_code,
)
from quantizers.codebooks.spherical_lattice import SHELLS, Lattice, lattice_for
from tests.cases import normal
from tests.effort import examples

EPS = torch.finfo(torch.float32).eps
seeds = st.integers(0, 99)
shells = pytest.mark.parametrize(
    ("points", "products"),
    [
        (e8_points, {-8: 1, -4: 56, 0: 126, 4: 56, 8: 1}),
        (barnes_wall_points, {-8: 1, -4: 280, -2: 1024, 0: 1710, 2: 1024, 4: 280, 8: 1}),
        (leech_points, {-32: 1, -16: 4600, -8: 47104, 0: 93150, 8: 47104, 16: 4600, 32: 1}),
    ],
    ids=["e8", "barnes_wall", "leech"],
)
unit_shells = pytest.mark.parametrize("shell", [e8_shell, barnes_wall_shell, leech_shell])
lattices = pytest.mark.parametrize("lattice", list(SHELLS))


def as_set(points: Tensor) -> Tensor:
    """The set of integer points with coordinates from −4 to 4, as sorted pairs of numbers in base 9."""
    digits, powers = points.long() + 4, 9 ** torch.arange(12)
    halves = [(half * powers[: half.shape[1]]).sum(1) for half in digits.split(12, dim=1)]
    return torch.unique(torch.stack(halves, dim=1), dim=0)


@shells
@examples(5)
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


@examples(2)
@given(word=st.integers(0, 4095), shift=st.integers(1, 22))
def test_the_leech_shell_has_the_symmetries_of_its_code(word: int, shift: int) -> None:
    """Negation at the positions of a word, and the permutation that shifts the cyclic code of 23 bits."""
    shell = leech_points()
    assert torch.equal(as_set(shell * (1 - 2 * golay_code()[word])), as_set(shell))
    shifted = torch.cat([shell[:, :23].roll(shift, 1), shell[:, 23:]], dim=1)
    assert torch.equal(as_set(shifted), as_set(shell))


def test_the_reed_muller_code_is_linear_with_distance_8() -> None:
    words = reed_muller_code().long()
    assert words.sum(1).bincount().nonzero().flatten().tolist() == [0, 8, 16]
    assert (words.sum(1) == 8).sum() == 30
    sums = (words[:, None] + words) % 2
    assert torch.equal(as_set(sums.view(-1, 16)), as_set(words))
    assert len(as_set(words)) == 32


@given(word=st.integers(0, 31), shift=st.integers(1, 15))
def test_the_barnes_wall_shell_has_the_symmetries_of_its_code(word: int, shift: int) -> None:
    """Negation at the positions of a word, and a translation of the four bits of a position."""
    shell = barnes_wall_points()
    assert torch.equal(as_set(shell * (1 - 2 * reed_muller_code()[word])), as_set(shell))
    assert torch.equal(as_set(shell[:, torch.arange(16) ^ shift]), as_set(shell))


@unit_shells
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


@lattices
@examples(5)
@given(seed=seeds)
def test_each_point_gets_its_own_index_at_any_length_and_a_near_vector_too(lattice: Lattice, seed: int) -> None:
    """Halfway to its nearest neighbours, at 30 degrees, a point is still the nearest."""
    quantizer = SphericalLattice(SHELLS[lattice].channels, lattice)
    points = quantizer.points
    chosen = torch.randint(len(points), (64,), generator=torch.Generator().manual_seed(seed))
    exact = points[chosen].float()
    noise = torch.nn.functional.normalize(normal(seed, *exact.shape, dtype=torch.float32), dim=1)
    near = exact + 0.49 * exact.norm(dim=1, keepdim=True) * noise  # sin 30° = 1/2
    for z in (exact, 1e-20 * exact, 1e20 * exact, near):
        assert torch.equal(quantizer.encode(z), chosen)


@lattices
@examples(5)
@given(seed=seeds)
def test_a_midpoint_gets_one_of_the_two_points_and_ties_go_to_the_lowest(lattice: Lattice, seed: int) -> None:
    """Two neighbours at 60 degrees have no third as near to their middle; equal products are compared exactly."""
    quantizer = SphericalLattice(SHELLS[lattice].channels, lattice)
    points = quantizer.points.float()
    first = int(torch.randint(len(points), (), generator=torch.Generator().manual_seed(seed)))
    products = points @ points[first]
    neighbours = (products == products.max() / 2).nonzero()
    second = int(neighbours[seed % len(neighbours)])
    middle = points[first] + points[second]
    index = int(quantizer.encode(middle))
    assert index in (first, second)
    exact = points @ middle
    assert exact[index] == exact.max()


@lattices
@examples(5)
@given(seed=seeds)
def test_the_search_finds_the_largest_product(lattice: Lattice, seed: int) -> None:
    channels = SHELLS[lattice].channels
    quantizer = SphericalLattice(channels, lattice)
    z, points = normal(seed, 20, channels, dtype=torch.float32), quantizer.points.double()
    products = z.double() @ points.T
    chosen = products.gather(1, quantizer.encode(z)[:, None])[:, 0]
    # In squared distances of unit vectors, which the search compares, roundings of all channels.
    slack = 2 * (channels + 2) * EPS * z.double().norm(dim=1) * points[0].norm()
    assert (products.amax(1) - chosen <= slack).all()


@lattices
def test_nothing_is_learned_and_no_loss_is_added(lattice: Lattice) -> None:
    quantizer = SphericalLattice(SHELLS[lattice].channels, lattice)
    x = normal(0, 30, quantizer.dim, dtype=torch.float32).requires_grad_()
    out = quantizer(x)
    assert not list(quantizer.parameters())
    assert out.loss == 0
    out.quantized.sum().backward()
    assert x.grad.any()
    assert quantizer.points.dtype == torch.int8


@lattices
def test_the_sizes_are_those_of_the_points(lattice: Lattice) -> None:
    quantizer, shell = SphericalLattice(4, lattice), SHELLS[lattice]
    assert quantizer.points.shape == (shell.size, shell.channels)
    assert (quantizer.codebook_size, quantizer.code_dim) == (shell.size, shell.channels)
    assert torch.equal(quantizer.points, shell.points())


@given(size=st.one_of(st.integers(1, 2**20), st.integers(1, 2**63 - 1), st.integers(1010, 1025)))
def test_a_codebook_size_takes_the_shell_that_is_nearest_in_ratio(size: int) -> None:
    def times(lattice: Lattice) -> Fraction:
        ratio = Fraction(SHELLS[lattice].size, size)
        return max(ratio, 1 / ratio)

    chosen = lattice_for(size)
    nearest = min(map(times, SHELLS))
    assert times(chosen) == nearest


@pytest.mark.parametrize(
    ("size", "lattice"),
    [
        (1, "e8"),
        (256, "e8"),
        (1018, "e8"),
        (1019, "barnes_wall"),
        (1024, "barnes_wall"),
        (29139, "barnes_wall"),
        (29140, "leech"),
        (65536, "leech"),
    ],
)
def test_shells_of_common_sizes(size: int, lattice: Lattice) -> None:
    assert quantizers.create("lattice", 5, size).codebook_size == SHELLS[lattice].size
    assert repr(quantizers.create("lattice", 5, size)) == repr(quantizers.create("lattice", 5, lattice=lattice))


def test_exactly_one_of_size_and_lattice_is_taken() -> None:
    for options in ({}, {"codebook_size": 240, "lattice": "e8"}):
        with pytest.raises(
            ValueError, match="lattice takes either lattice or codebook_size: expected exactly one"
        ):
            quantizers.create("lattice", 8, **options)


def test_points_can_be_changed_without_changing_those_of_others() -> None:
    e8_points().zero_()
    assert e8_points().any()


@lattices
def test_a_shell_is_built_without_values(lattice: Lattice) -> None:
    """Under fake tensors, before any real one of it has been built."""
    with FakeTensorMode():
        assert SphericalLattice(4, lattice).points.shape == (SHELLS[lattice].size, SHELLS[lattice].channels)


def test_checkpoints_of_another_lattice_are_refused() -> None:
    other = SphericalLattice(24, "leech").state_dict()
    with pytest.raises(RuntimeError, match='has lattice "leech" and not "e8"'):
        SphericalLattice(8, "e8").load_state_dict(other)


@unit_shells
def test_a_shell_is_a_codebook_of_other_methods(shell: Callable[[], Tensor]) -> None:
    codes = shell()
    quantizer = quantizers.create("vq", codes.shape[1], codebook=codes, frozen=True, distance="cosine")
    assert torch.equal(quantizer.encode(codes[:100]), torch.arange(100))
