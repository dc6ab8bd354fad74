"""The columns of packed vectors and the tile sizes of the search, from its shape and the device.

Registers and shared memory decide on Hopper. A step of the search multiplies, waits for the matrix unit, and then
takes minima. With at most 128 registers a thread and half of the shared memory, two blocks share a multiprocessor,
and the minima of one overlap with the products of the other. A resident row is read once; streamed rows and codes
are read again in every step, from the second-level cache, which then limits the speed. So rows are resident
wherever the tile fits, even if only one block does (256 channels).
"""

from typing import NamedTuple

from quantizers.kernels.common.constants import ROUNDOFF_FLOAT32
from quantizers.kernels.common.triton.device import Device
from quantizers.kernels.nearest.triton.precision import ACCUMULATION, REST

BLOCK_N = 128  # rows of a search tile
LEAST_BLOCK_K = 32  # codes of the shortest step
WARPS = 8
CLASSES = 4  # a class is (k mod 8) // 2
BIAS_COLUMNS = 3  # numbers of 11 bits that hold ½‖e‖² to float32's precision
BIAS_WIDTH = 32  # the widest product that adds ½‖e‖² in columns; wider ones are bound by matrix units
RESIDENT_WIDTH = 256  # columns of the widest row that may stay in shared memory through the loop
STREAMED_WIDTH = 128  # columns of a step of streamed rows
BYTES = 2  # of a column, float16
PROGRAMS_PER_MULTIPROCESSOR = 4  # enough to keep idle time short at the end


class Layout(NamedTuple):
    """The columns of packed rows and codes: the channels, the three of ½‖e‖² or none, and padding."""

    width: int
    resident: bool  # rows stay in shared memory through the loop; otherwise they are streamed like the codes
    bias_columns: bool  # columns of the product add ½‖e‖², to which the sums are otherwise added


class Tiles(NamedTuple):
    """The tile sizes of one search."""

    block_n: int  # rows per program
    block_k: int  # codes per step
    block_d: int  # columns per step
    warps: int
    stages: int  # of the software pipeline
    splits: int  # programs that share the codes of one tile of rows


class Search(NamedTuple):
    """The properties that determine the tile sizes of a search."""

    n: int  # rows over all heads, each head padded to BLOCK_N
    k: int
    d: int
    device: Device


class Bound(NamedTuple):
    """The coefficients of the error (10) of a score besides the rounding of what is packed."""

    product: float  # of ‖x̂‖ ‖ê‖
    square: float  # of t R²


# Programs per multiprocessor of measured searches; see tuning.py.
tuned: dict[Search, int] = {}


def layout(d: int, device: Device) -> Layout:
    """Return the columns for `d` channels."""
    bias_columns = d + BIAS_COLUMNS <= BIAS_WIDTH
    padded = _power_of_two(d + BIAS_COLUMNS if bias_columns else d)
    least = (BLOCK_N + 2 * LEAST_BLOCK_K) * padded * BYTES
    resident = padded <= RESIDENT_WIDTH and least <= device.shared_memory
    return Layout(padded if resident else round_up(d, STREAMED_WIDTH), resident, bias_columns)


def tiles_of(search: Search, cut: Layout) -> Tiles:
    """Return `tiles`, with the measured number of programs for this search if there is one."""
    programs = tuned.get(search, PROGRAMS_PER_MULTIPROCESSOR)
    return tiles(search.n, search.k, cut, search.device, programs)


def tiles(n: int, k: int, cut: Layout, device: Device, programs: int = PROGRAMS_PER_MULTIPROCESSOR) -> Tiles:
    """Return the tiles for `n` rows (over all heads, each padded to BLOCK_N) and `k` codes.

    A device with enough shared memory multiplies from there. With less (sm_80), the operands also use registers,
    and steps are shorter. The codes are split if there are too few tiles of rows to fill the device.

    Args:
        programs: programs per multiprocessor that the codes are split for.
    """
    small = device.shared_memory < 200 * 1024
    if cut.resident:
        block_k, row = 64 if small else 128, cut.width * BYTES
        while (BLOCK_N + 2 * block_k) * row > device.shared_memory:
            block_k //= 2
        # A third stage if two blocks still fit.
        stages = 3 if 2 * (BLOCK_N + 3 * block_k) * row <= device.shared_memory else 2
        block_d = cut.width
    else:
        block_k, stages = (128 if small else 256), 2
        block_d = STREAMED_WIDTH // 2 if small else STREAMED_WIDTH
    wanted = -(-programs * device.multiprocessors // max(-(-n // BLOCK_N), 1))
    return Tiles(BLOCK_N, block_k, block_d, WARPS, stages, max(1, min(wanted, -(-k // block_k))))


def bound(cut: Layout) -> Bound:
    """Return the coefficients of (10)."""
    u, sums = ROUNDOFF_FLOAT32, ACCUMULATION * cut.width
    return Bound(REST * (sums + 1) * u, REST * (0.5 * sums + 1) * u)


def round_up(count: int, multiple: int) -> int:
    """Return the smallest multiple that is at least `count`."""
    return -(-count // multiple) * multiple


def _power_of_two(count: int) -> int:
    return max(16, 1 << (count - 1).bit_length())  # a matrix unit's step is 16 columns
