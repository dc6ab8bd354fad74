"""What every operation but the search launches, without a GPU: kernels a call, compiled variants, and grids."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from quantizers.kernels.averages.triton import average_codes_
from quantizers.kernels.highest.triton import highest_score
from quantizers.kernels.k_nearest.triton import k_nearest_codes
from quantizers.kernels.levels.triton import round_levels, round_levels_backward
from quantizers.kernels.nearest.triton.lookup_gradient import lookup_codebook_gradient, lookup_vector_gradient
from quantizers.kernels.rotation.triton import rotate_grad
from quantizers.kernels.rows.triton import (
    finite_rows,
    marked_rows,
    mean_loss,
    mean_loss_gradient,
    rows_gradient,
)
from quantizers.kernels.soft.triton.backward import soft_codes_backward
from quantizers.kernels.soft.triton.forward import soft_codes
from quantizers.kernels.sums.triton import code_sums, ema_code_sums
from tests.triton.interpreter import compiles_kernels
from tests.triton.variants import BATCH_SIZES, TorchKernels, compiled_again, recorded_launches

pytestmark = compiles_kernels

LARGEST_FIRST = BATCH_SIZES[::-1]  # small batches launch fewer kernels
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def launches(call: Callable[[], object]) -> list[str]:
    """The names of the kernels that a call launches: PyTorch's, then Triton's."""
    with recorded_launches() as kernels, TorchKernels() as torchs:
        call()
    return torchs.names + [kernel.name for kernel in kernels]


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def indices(heads: int, n: int) -> Tensor:
    return empty(heads, n, dtype=torch.int64)


SUMS = ["sort", "_key_kernel", "_start_kernel", "_piece_kernel", "_code_kernel"]


@pytest.mark.parametrize("heads", [1, 4])
def test_sums_are_five_launches(heads: int) -> None:
    x, chosen = empty(1000, heads, 16).transpose(0, 1), indices(heads, 1000)
    assert launches(lambda: code_sums(x, chosen, 50)) == SUMS


def test_averages_are_one_more() -> None:
    x, chosen = empty(1, 1000, 16), indices(1, 1000)
    state = empty(1, 50), empty(1, 50, 16)
    decay = torch.ones((), dtype=torch.float64, device="meta")
    assert launches(lambda: ema_code_sums(x, chosen, *state, decay)) == [*SUMS, "_average_kernel"]


def test_a_step_of_the_averages_is_two_more() -> None:
    state = empty(50, 16), empty(50), empty(50, 16), empty(50, 16)
    found = launches(lambda: average_codes_(empty(1000, 16), indices(1, 1000)[0], *state, 0.9, 1e-5, False))
    assert found == [*SUMS, "_average_kernel", "_write_kernel"]


def rotated(n: int, d: int, dtype: torch.dtype) -> None:
    rotate_grad(*(empty(n, d, dtype=dtype) for _ in range(3)))


def summed(n: int, d: int, dtype: torch.dtype) -> None:
    code_sums(empty(2, n, d, dtype=dtype), indices(2, n), 100)


def averaged(n: int, d: int, dtype: torch.dtype) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    state = empty(2, 100, dtype=wide), empty(2, 100, d, dtype=wide)
    ema_code_sums(empty(2, n, d, dtype=dtype), indices(2, n), *state, 0.9)


def moved(n: int, d: int, dtype: torch.dtype) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    codes = empty(100, d, dtype=wide)
    state = codes, empty(100, dtype=wide), codes, codes
    average_codes_(empty(n, d, dtype=wide), indices(1, n)[0], *state, 0.9, 1e-5, False)


def sums_of_split_channels(n: int, d: int, dtype: torch.dtype) -> None:
    code_sums(empty(n, 2, d, dtype=dtype).transpose(0, 1), indices(n, 2).T, 100)


def differences(n: int, d: int, dtype: torch.dtype) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    gradient, codes = empty(2, n, dtype=wide), empty(2, n, d, dtype=wide)
    arguments = gradient, empty(2, n, d, dtype=dtype), codes, indices(2, n), 0.25
    lookup_vector_gradient(*arguments)
    lookup_codebook_gradient(None, *arguments, 100)
    lookup_codebook_gradient(codes, *arguments, 100)


def rounded(n: int, d: int, dtype: torch.dtype) -> None:
    z, counts = empty(n, d, dtype=torch.promote_types(dtype, torch.float32)), empty(d, dtype=torch.int64)
    round_levels(z, counts, 0.8)
    round_levels_backward(z, z, counts, 0.8)


def highest(n: int, d: int, dtype: torch.dtype) -> None:
    highest_score(*(empty(*shape, dtype=dtype) for shape in ((n, d), (100, d), (100,))))


def k_nearest(n: int, d: int, dtype: torch.dtype) -> None:
    for k in (2, 16):
        k_nearest_codes(empty(2, n, d, dtype=dtype), empty(2, 100, d, dtype=dtype), k)


def soft(n: int, d: int, dtype: torch.dtype, size: int = 100, width: int = 5) -> None:
    if dtype == torch.float64:
        dtype = torch.float16
    x, keys, bias, values = (empty(*shape, dtype=dtype) for shape in ((n, d), (size, d), (size,), (size, width)))
    for seed in (None, torch.ones((), dtype=torch.int64, device="meta")):
        inputs = x, keys, bias, values, torch.ones((), device="meta"), seed
        value, _, divergence, log_sums = soft_codes(*inputs)
        soft_codes_backward(value, divergence, *inputs, value, divergence, log_sums)


def marked(n: int, d: int, dtype: torch.dtype) -> None:
    wide, mask = torch.promote_types(dtype, torch.float32), empty(n, dtype=torch.bool)
    for masks in (None, mask):
        vectors, valid = finite_rows(empty(n, d, dtype=dtype), masks)
    marked_rows(vectors, indices(n, 2), valid)
    rows_gradient(vectors, valid, dtype)
    means, divisor = mean_loss(empty(2, n, dtype=wide), valid, d)
    mean_loss_gradient(means, valid, divisor)


CALLS = [
    rotated,
    summed,
    averaged,
    moved,
    sums_of_split_channels,
    differences,
    rounded,
    highest,
    k_nearest,
    soft,
    marked,
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 3, 16, 300])
@pytest.mark.parametrize("call", CALLS)
def test_each_kernel_is_compiled_once_for_all_batch_sizes(
    call: Callable[[int, int, torch.dtype], None], d: int, dtype: torch.dtype
) -> None:
    assert compiled_again(lambda n: call(n, d, dtype), LARGEST_FIRST) == {}
