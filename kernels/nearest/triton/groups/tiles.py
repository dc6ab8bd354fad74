"""The layout of packed vectors and the tile sizes of the search by groups, from its shape, mode and device.

Registers and shared memory decide on Hopper: with at most 128 registers a thread and half of the shared memory,
two blocks share a multiprocessor, and the minima of one overlap with the products of the other.
"""

from typing import Literal, NamedTuple

from quantizers.kernels.common.constants import ROUNDOFF_FLOAT32
from quantizers.kernels.common.triton.device import Device
from quantizers.kernels.nearest.triton.precision import ACCUMULATION, REST, Mode
from quantizers.kernels.nearest.triton.tiles import PROGRAMS_PER_MULTIPROCESSOR, round_up

Values = Literal["tf32", "bf16"]

BLOCK_N = 128  # rows of a search tile
LEAST_BLOCK_K = 32  # codes of the shortest step
WARPS = 8
CLASSES = 4  # a class is (k mod 8) // 2
BIAS_COLUMNS = 3  # pieces that hold ½‖e‖² to float32's precision in either kind of values
JOINT_VALUES: dict[int, Values] = {16: "tf32", 32: "tf32", 64: "bf16"}  # by the columns of halves side by side
BIAS_WIDTH = 32  # the widest single product that adds ½‖e‖² in columns; wider ones are bound by matrix units
RESIDENT_WIDTH = 256  # channels of the widest row that may stay in shared memory through the loop
RESIDENT_WIDTH_HALVES = 128  # the same for low and high halves
BYTES: dict[Values, int] = {"tf32": 4, "bf16": 2}
STREAMED_BYTES = 256  # of a row in a step, if rows are streamed

# The error of a score; equations (13) to (15) of README.md.
SPLIT_ERROR: dict[Values, float] = {"tf32": 3 * 2.0**-22, "bf16": 3 * 2.0**-16}
HALVES = 1 + 2.0**-5  # what the sums of bfloat16 halves, which may exceed the values, add to those of the values


class Layout(NamedTuple):
    """The columns of packed rows and codes.

    With one product, a code's columns are its channels, or their halves side by side, hi, lo, hi, to meet a row's
    lo, hi, hi. With three products, they are all low halves and then all high halves.
    """

    values: Values  # to which the columns are rounded
    parts: int  # copies of the channels among the columns: 1, 2 (three products) or 3 (halves side by side)
    period: int  # columns from one copy to the next
    width: int  # columns of one product
    resident: bool  # rows stay in shared memory through the loop; otherwise they are streamed like the codes
    bias_columns: bool  # columns of the product add ½‖e‖², which is otherwise added to the sums

    @property
    def products(self) -> int:
        return 3 if self.parts == 2 else 1

    @property
    def columns(self) -> int:
        """The columns of a packed row."""
        return 2 * self.width if self.parts == 2 else self.width


class Tiles(NamedTuple):
    """The tile sizes of one search by groups."""

    block_n: int  # rows per program
    block_k: int  # codes per step
    block_d: int  # columns of a product per step
    warps: int
    stages: int  # of the software pipeline
    splits: int  # programs that share the codes of one tile of rows


class Bound(NamedTuple):
    """The coefficients of the error E = product · a R + square · t R² of a score."""

    product: float
    square: float


def layout(d: int, mode: Mode, device: Device) -> Layout:
    """Return the layout for `d` channels.

    Halves of few channels stand side by side, and one product does it all. Halves of more channels are bfloat16,
    since three products of these take half the time of tf32's, and two groups kept make up for their larger error.
    """
    if mode == "exact":
        padded = _power_of_two(d)
        joint = _power_of_two(3 * d + BIAS_COLUMNS)
        if joint in JOINT_VALUES:
            return Layout(JOINT_VALUES[joint], 3, d, joint, True, True)
        resident = padded <= RESIDENT_WIDTH_HALVES
        width = padded if resident else round_up(d, _step("bf16", 2))
        return Layout("bf16", 2, width, width, resident, False)
    bias_columns = d + BIAS_COLUMNS <= BIAS_WIDTH
    padded = _power_of_two(d + BIAS_COLUMNS if bias_columns else d)
    least = (BLOCK_N + 2 * LEAST_BLOCK_K) * padded * BYTES[mode]
    resident = padded <= RESIDENT_WIDTH and least <= device.shared_memory
    width = padded if resident else round_up(d, _step(mode, 1))
    return Layout(mode, 1, d if bias_columns else width, width, resident, bias_columns)


def tiles(n: int, k: int, cut: Layout, device: Device, programs: int = PROGRAMS_PER_MULTIPROCESSOR) -> Tiles:
    """Return the tiles for `n` rows (over all heads, each padded to BLOCK_N) and `k` codes.

    A device with enough shared memory multiplies from there. With less (sm_80), the operands also use registers,
    and steps are shorter. The codes are split if there are too few tiles of rows to fill the device.

    Args:
        programs: programs per multiprocessor that the codes are split for.
    """
    small = device.shared_memory < 200 * 1024
    if cut.resident:
        block_k, row = 64 if small else 128, cut.columns * BYTES[cut.values]
        while (BLOCK_N + 2 * block_k) * row > device.shared_memory:
            block_k //= 2
        # A third stage if two blocks still fit.
        stages = 3 if 2 * (BLOCK_N + 3 * block_k) * row <= device.shared_memory else 2
        block_d = cut.width
    else:
        block_k, stages, block_d = 256, 2, _step(cut.values, cut.parts)
        if small:
            block_k, block_d = 64 if cut.parts == 2 else 128, block_d // (1 if cut.parts == 2 else 2)
    wanted = -(-programs * device.multiprocessors // max(-(-n // BLOCK_N), 1))
    return Tiles(BLOCK_N, block_k, block_d, WARPS, stages, max(1, min(wanted, -(-k // block_k))))


def bound(cut: Layout) -> Bound:
    """Return the coefficients of (14), with columns for the bias, or (15)."""
    u, split = ROUNDOFF_FLOAT32, SPLIT_ERROR[cut.values]
    sums = ACCUMULATION * cut.width
    if cut.bias_columns:
        return Bound(REST * (split + sums * u), REST * (0.5 * sums + 1) * u)
    sums *= HALVES * (1 if cut.resident else 3)
    return Bound(REST * (split + (sums + 1) * u), REST * u)


def _step(values: Values, parts: int) -> int:
    """Return the columns of a product in a step of streamed rows."""
    return STREAMED_BYTES // BYTES[values] // parts


def _power_of_two(count: int) -> int:
    return max(16, 1 << (count - 1).bit_length())  # a matrix unit's step is 16 columns of bfloat16
