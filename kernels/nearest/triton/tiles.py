"""Tile sizes of the nearest-code search, from its shape and the device's properties."""

from typing import NamedTuple

import torch

from quantizers.kernels.nearest.triton.precision import Mode

BLOCK_N = 128  # rows of a search tile
BLOCK_K = 64  # codes per step: as many as fit in the registers next to the running minima and the sums
WARPS = 8
RESIDENT_WIDTH = {"exact": 64, "tf32": 128, "bf16": 128}  # widest row that stays in shared memory through the loop
STREAMED_WIDTH = {"exact": 32, "tf32": 64, "bf16": 128}  # channels per step for wider rows
BYTES = {"exact": 8, "tf32": 4, "bf16": 2}  # per channel
PROGRAMS_PER_MULTIPROCESSOR = 4  # enough to keep idle time short at the end
INTERPRETED = (
    2,
    163 * 1024,
)  # multiprocessors and shared memory without a device: few, but enough to split a search


class Tiles(NamedTuple):
    """The tile sizes of one search."""

    block_n: int  # rows per program
    block_k: int  # codes per step
    block_d: int  # channels per step
    warps: int
    stages: int  # of the software pipeline
    splits: int  # programs that share the codes of one tile of rows


class Device(NamedTuple):
    multiprocessors: int
    shared_memory: int  # bytes a block may use


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

    Rows of at most RESIDENT_WIDTH channels, padded to a power of two, are loaded once; wider rows are streamed.
    The codes are split if there are too few tiles of rows to fill the device.

    Args:
        shared_memory: bytes that a block may use. A device with enough of it multiplies from shared memory. With
            less (sm_80), the operands also use registers, and the steps of the exact mode are half as long.
        programs: programs per multiprocessor that the codes are split for.
    """
    padded = max(16, 1 << (d - 1).bit_length())  # a matrix unit's step is 16 channels
    resident = padded <= RESIDENT_WIDTH[mode]
    block_d = padded if resident else STREAMED_WIDTH[mode]
    small = shared_memory < 200 * 1024
    block_k = BLOCK_K // 2 if small and mode == "exact" else BLOCK_K
    row = block_d * BYTES[mode]
    # A step of streamed rows contains rows and codes; resident rows are loaded once.
    held, step = (BLOCK_N * row, block_k * row) if resident else (0, (BLOCK_N + block_k) * row)
    stages = 3 if held + 3 * step <= shared_memory else 2
    wanted = -(-programs * multiprocessors // max(-(-n // BLOCK_N), 1))
    return Tiles(BLOCK_N, block_k, block_d, WARPS, stages, max(1, min(wanted, -(-k // block_k))))


def device_properties(device: torch.device) -> Device:
    """Return the device properties that `tiles` needs; fixed numbers for the CPU, where Triton's interpreter
    runs."""
    if device.type != "cuda":
        return Device(*INTERPRETED)
    properties = torch.cuda.get_device_properties(device)
    shared_memory = properties.shared_memory_per_block_optin  # type: ignore[attr-defined]
    return Device(properties.multi_processor_count, shared_memory)
