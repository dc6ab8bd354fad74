"""Tile sizes of the nearest-code search, from its shape and the device's properties."""

from typing import Literal, NamedTuple

import torch

Mode = Literal["exact", "tf32", "bf16"]

BLOCK_N = 128  # rows of a search tile
BLOCK_K = 64  # codes of a step: what the running minima and the sums leave room for in the registers
WARPS = 8
RESIDENT_WIDTH = {"exact": 64, "tf32": 128, "bf16": 128}  # widest row that stays in shared memory through the loop
STREAMED_WIDTH = {"exact": 32, "tf32": 64, "bf16": 128}  # channels of a step where rows are wider
BYTES = {"exact": 8, "tf32": 4, "bf16": 2}  # of a channel
PROGRAMS_A_MULTIPROCESSOR = 4  # enough that none stands idle for long at the end
INTERPRETED = (2, 163 * 1024)  # multiprocessors and shared memory without a device: few, yet a search is split


class Tiles(NamedTuple):
    """How one search is cut."""

    block_n: int  # rows of a program
    block_k: int  # codes of a step
    block_d: int  # channels of a step
    warps: int
    stages: int  # of the software pipeline
    splits: int  # programs that share the codes of one tile of rows


class Device(NamedTuple):
    multiprocessors: int
    shared_memory: int  # bytes a block may use


class Search(NamedTuple):
    """What decides how a search is cut."""

    n: int  # rows over all heads, each head padded to BLOCK_N
    k: int
    d: int
    mode: Mode
    device: Device


# Programs a multiprocessor of searches that were measured; see tuning.py.
tuned: dict[Search, int] = {}


def tiles_of(search: Search) -> Tiles:
    """`tiles`, with the number of programs that was measured for this search where one was."""
    programs = tuned.get(search, PROGRAMS_A_MULTIPROCESSOR)
    return tiles(*search[:4], *search.device, programs=programs)


def tiles(
    n: int,
    k: int,
    d: int,
    mode: Mode,
    multiprocessors: int,
    shared_memory: int,
    programs: int = PROGRAMS_A_MULTIPROCESSOR,
) -> Tiles:
    """The tiles for `n` rows (over all heads, each padded to BLOCK_N), `k` codes and `d` channels.

    Rows of at most RESIDENT_WIDTH channels, padded to a power of two, are loaded once; wider ones are streamed.
    The codes are split where there are too few tiles of rows to fill the device.

    Args:
        shared_memory: bytes a block may use. A device with much of it multiplies from there; with less (sm_80) the
            operands take registers too, and the steps of the exact mode are halved.
        programs: a multiprocessor, that the codes are split for.
    """
    padded = max(16, 1 << (d - 1).bit_length())  # a matrix unit's step is 16 channels
    resident = padded <= RESIDENT_WIDTH[mode]
    block_d = padded if resident else STREAMED_WIDTH[mode]
    small = shared_memory < 200 * 1024
    block_k = BLOCK_K // 2 if small and mode == "exact" else BLOCK_K
    row = block_d * BYTES[mode]
    # A step of streamed rows holds rows and codes; resident rows are held once.
    held, step = (BLOCK_N * row, block_k * row) if resident else (0, (BLOCK_N + block_k) * row)
    stages = 3 if held + 3 * step <= shared_memory else 2
    wanted = -(-programs * multiprocessors // max(-(-n // BLOCK_N), 1))
    return Tiles(BLOCK_N, block_k, block_d, WARPS, stages, max(1, min(wanted, -(-k // block_k))))


def device_properties(device: torch.device) -> Device:
    """What `tiles` asks of a device; fixed numbers for the CPU, where Triton's interpreter runs."""
    if device.type != "cuda":
        return Device(*INTERPRETED)
    properties = torch.cuda.get_device_properties(device)
    shared_memory = properties.shared_memory_per_block_optin  # type: ignore[attr-defined]
    return Device(properties.multi_processor_count, shared_memory)


def matmul_mode() -> Mode:
    """The mode that `torch.get_float32_matmul_precision()` asks for."""
    modes: dict[str, Mode] = {"highest": "exact", "high": "tf32", "medium": "bf16"}
    return modes[torch.get_float32_matmul_precision()]
