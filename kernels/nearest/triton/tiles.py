"""Tile sizes of the nearest-code search, from its shape and the device's properties.

Occupancy decides on Hopper. A step of the search multiplies, waits for the matrix unit, and then updates the
minima, so a block alone leaves either the matrix unit or the other units idle. Two blocks on a multiprocessor
overlap. A multiprocessor of sm_90 has 65,536 registers and 227 kB of shared memory: two blocks of 8 warps fit if a
thread uses at most 128 registers and a block at most 113 kB.

Registers hold the running minima, 2 numbers (exact: 3) for each pair of a row and a code in a tile, and the sums
of the step. With 64 codes (exact: 32) and a software pipeline of two stages, a thread needs at most 128. Shared
memory holds the rows, if they are resident, and the codes of each stage. A resident row is read once; streamed
rows and codes are read again in every step, from the second-level cache, which then limits the speed. So rows are
resident wherever the tile fits, even if only one block does (tf32 from 128 channels on, bfloat16 from 256). The
matrix units of sm_80 take their operands from registers, so only its narrowest tiles need 128 or fewer.
"""

from typing import NamedTuple

from quantizers.kernels.common.triton.device import Device
from quantizers.kernels.nearest.triton.precision import Mode

BLOCK_N = 128  # rows of a search tile
BLOCK_K = 64  # codes per step
HALF_BLOCK_K = 32  # where registers or shared memory do not suffice for more
WARPS = 8
RESIDENT_WIDTH = {"exact": 64, "tf32": 256, "bf16": 256}  # widest row that stays in shared memory through the loop
RESIDENT_STAGES = 2
STREAMED_WIDTH = {"exact": 32, "tf32": 64, "bf16": 128}  # channels per step for wider rows
BYTES = {"exact": 8, "tf32": 4, "bf16": 2}  # per channel
PROGRAMS_PER_MULTIPROCESSOR = 4  # enough to keep idle time short at the end


class Tiles(NamedTuple):
    """The tile sizes of one search."""

    block_n: int  # rows per program
    block_k: int  # codes per step
    block_d: int  # channels per step
    warps: int
    stages: int  # of the software pipeline
    splits: int  # programs that share the codes of one tile of rows


class Search(NamedTuple):
    """The properties that determine the tile sizes of a search."""

    n: int  # rows over all heads, each head padded to BLOCK_N
    k: int
    d: int
    mode: Mode
    device: Device


# Programs per multiprocessor of measured searches; see tuning.py.
tuned: dict[Search, int] = {}


def tiles_of(search: Search) -> Tiles:
    """Return `tiles`, with the measured number of programs for this search if there is one."""
    programs = tuned.get(search, PROGRAMS_PER_MULTIPROCESSOR)
    return tiles(*search[:4], *search.device, programs=programs)


def tiles(
    n: int,
    k: int,
    d: int,
    mode: Mode,
    multiprocessors: int,
    shared_memory: int,
    programs: int = PROGRAMS_PER_MULTIPROCESSOR,
) -> Tiles:
    """Return the tiles for `n` rows (over all heads, each padded to BLOCK_N), `k` codes and `d` channels.

    Rows of at most RESIDENT_WIDTH channels, padded to a power of two, are loaded once if they fit in shared memory
    with two steps of codes; wider rows are streamed. The codes are split if there are too few tiles of rows to
    fill the device.

    Args:
        shared_memory: bytes that a block may use. A device with enough of it multiplies from shared memory. With
            less (sm_80), the operands also use registers, and streamed steps of the exact mode are half as long.
        programs: programs per multiprocessor that the codes are split for.
    """
    padded = max(16, 1 << (d - 1).bit_length())  # a matrix unit's step is 16 channels
    row = padded * BYTES[mode]
    block_k = HALF_BLOCK_K if mode == "exact" or row > 512 else BLOCK_K
    stages = RESIDENT_STAGES
    if padded > RESIDENT_WIDTH[mode] or (BLOCK_N + stages * block_k) * row > shared_memory:
        padded = STREAMED_WIDTH[mode]
        row = padded * BYTES[mode]
        block_k = HALF_BLOCK_K if mode == "exact" and shared_memory < 200 * 1024 else BLOCK_K
        stages = 3 if 3 * (BLOCK_N + block_k) * row <= shared_memory else 2
    wanted = -(-programs * multiprocessors // max(-(-n // BLOCK_N), 1))
    return Tiles(BLOCK_N, block_k, padded, WARPS, stages, max(1, min(wanted, -(-k // block_k))))


def round_up(count: int, multiple: int) -> int:
    """Return the smallest multiple that is at least `count`."""
    return -(-count // multiple) * multiple
