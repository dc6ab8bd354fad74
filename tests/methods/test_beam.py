"""Beam search over residual stages: never worse than the greedy search, and the optimum where the beam is wide."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import quantizers
from benchmarks.allocations import largest_allocation
from quantizers import Quantizer, ResidualQuantizer, VectorQuantizer
from quantizers.composite.beam import beam_search
from tests.cases import normal
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)


def errors(quantizer: Quantizer, z: Tensor, indices: Tensor) -> Tensor:
    return (z - quantizer.decode(indices)).square().sum(-1)


def residual(**options: object) -> ResidualQuantizer:
    built = quantizers.create(
        "residual", **{"dim": 3, "codebook_size": 5, "num_quantizers": 3, **options}
    ).double()
    assert isinstance(built, ResidualQuantizer)
    return built


# Stages whose own choice is not the code that is nearest in the space of the search are among them.
STAGES = [
    {},
    {"distance": "cosine"},
    {"code_dim": 2},
    {"scales": [[1.0, 0.1, 3.0]] * 3},
    {"quantizer": "ibq"},
    {"quantizer": "fsq", "entry": nn.Tanh()},
]


@examples(3)
@given(seed=seeds, width=st.integers(2, 6))
@pytest.mark.parametrize("options", STAGES, ids=str)
def test_the_error_is_never_above_the_greedy_one(options: dict[str, object], seed: int, width: int) -> None:
    torch.manual_seed(seed)
    quantizer, z = residual(**options), normal(seed, 40, 3)
    target = torch.tanh(z) if "entry" in options else z
    greedy = errors(quantizer, target, quantizer.encode(z))
    beam = errors(quantizer, target, quantizer.encode(z, beam_width=width))
    # The search compares residuals from which the codes were taken one by one: a few roundings of each sum.
    assert (beam <= greedy + 64 * EPS * (1 + greedy + target.square().sum(-1))).all()
    if not options:
        assert (beam < greedy).any()


@examples(10)
@given(seed=seeds, n=st.integers(2, 3))
def test_a_wide_beam_finds_the_optimum(seed: int, n: int) -> None:
    z, books = normal(seed, 6, 3), [normal(seed + i + 1, 4, 3) for i in range(n)]
    paths = torch.tensor(list(itertools.product(range(4), repeat=n)))
    sums = torch.stack([book[column] for book, column in zip(books, paths.T, strict=True)]).sum(0)
    best = (z[:, None] - sums).square().sum(-1).argmin(1)
    # Two sums of random numbers within rounding of each other would be a wonder.
    assert torch.equal(beam_search(z, books, 4 ** (n - 1)), paths[best])


@examples(5)
@given(seed=seeds)
def test_one_beam_takes_the_nearest_code_of_each_stage(seed: int) -> None:
    torch.manual_seed(seed)
    quantizer, z = residual(), normal(seed, 20, 3)
    books = [stage.codebook.detach() for stage in quantizer.components]
    assert torch.equal(beam_search(z, books, 1), quantizer.encode(z))
    assert torch.equal(quantizer.encode(z, beam_width=1), quantizer.encode(z))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    z, books = normal(0, 50, 3), [normal(i, 8, 3) for i in (1, 2, 3)]
    whole = beam_search(z, books, 4)
    monkeypatch.setattr("quantizers.composite.beam.BLOCK", 100)
    assert torch.equal(beam_search(z, books, 4), whole)
    assert beam_search(z[:0], books, 4).shape == (0, 3)


def test_no_tensor_of_n_by_k() -> None:
    n, k, dim = 4096, 1024, 16
    quantizer = ResidualQuantizer(dim, [VectorQuantizer(dim, k) for _ in range(2)])
    x = torch.randn(n, dim)
    assert largest_allocation(lambda: quantizer.encode(x, beam_width=2)) < n * k * x.itemsize


def test_what_has_no_code_has_none_with_a_beam() -> None:
    """Neither a vector that is not finite or masked, nor one whose residual leaves float32."""
    quantizer = ResidualQuantizer(2, [VectorQuantizer(2, 3) for _ in range(2)])
    torch.nn.init.constant_(quantizer.components[0].embedding, -3e38)  # type: ignore[arg-type]
    x = torch.tensor([[0.0, 1.0], [torch.nan, 0.0], [1.0, 0.0], [3e38, 3e38]])
    mask = torch.tensor([True, True, False, True])
    greedy, beam = quantizer.encode(x, mask), quantizer.encode(x, mask, beam_width=3)
    assert torch.equal(greedy < 0, beam < 0)
    assert (beam[1:] == -1).all()
    assert (beam[0] >= 0).all()


def test_dtypes_and_prefixes() -> None:
    torch.manual_seed(0)
    quantizer, z = residual().float(), normal(0, 20, 3)
    for dtype in (torch.float64, torch.bfloat16):
        assert quantizer.encode(z.to(dtype), beam_width=3).shape == (20, 3)
    wide = quantizer.encode(z, beam_width=5, num_codebooks=2)
    assert wide.shape == (20, 2)
    assert (errors(quantizer, z, wide) <= errors(quantizer, z, quantizer.encode(z, num_codebooks=2)) + 1e-9).all()


def test_a_stage_of_several_codebooks_is_named() -> None:
    inner = quantizers.create("grouped", dim=4, codebook_size=8)
    quantizer = ResidualQuantizer(4, [inner])
    with pytest.raises(ValueError, match="a stage has several codebooks, expected one"):
        quantizer.encode(torch.zeros(3, 4), beam_width=2)
    with pytest.raises(ValueError, match="beam_width is 0"):
        quantizer.encode(torch.zeros(3, 4), beam_width=0)
