"""Tile sizes of the soft kernels, from the widths of packed matrices and the device.

Registers and shared memory decide. Hopper's matrix units read their operands from shared memory: up to 128 columns
of a block of rows (or codes) stay there through the loop, and wider ones are read step by step. Other devices keep
operands in registers, so that every program reads columns step by step and sums up fewer of them. A program that
does not sum up all columns of its result computes logits and noise that another one computes too.

Limits of registers were found by compiling with triton 3.6.0 and 3.7.1: below them nothing spills.
"""

from typing import Any, NamedTuple

import torch

STAGES = 2  # of the software pipeline


class Tiles(NamedTuple):
    """Tile sizes of one program of a soft kernel."""

    rows: int
    codes: int
    d: int  # columns of x and keys in a step of their product; all of them stay in shared memory if they fit
    width: int  # columns of values and gradient, likewise
    out_d: int  # columns of x or keys that a program sums up
    out_width: int  # columns of values, likewise
    warps: int
    registers: int  # a thread may have

    def constants(self) -> dict[str, Any]:
        """Return the kernels' arguments, by name."""
        return {
            "BLOCK_N": self.rows,
            "BLOCK_K": self.codes,
            "D_STEP": self.d,
            "V_STEP": self.width,
            "OUT_D": self.out_d,
            "OUT_V": self.out_width,
            "WARPS": self.warps,
        }

    def options(self) -> dict[str, Any]:
        """Return the compiler's options."""
        limit = {"maxnreg": self.registers} if self.registers < 255 else {}
        return {"num_warps": self.warps, "num_stages": STAGES, "enable_fp_fusion": True, **limit}


def has_warp_groups(device: torch.device) -> bool:
    """Return whether the device has matrix units that read both operands from shared memory (Hopper's)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9


def forward_tiles(d: int, width: int, groups: bool) -> Tiles:
    """Return tiles of the forward for packed matrices of d and `width` columns; groups: see `has_warp_groups`."""
    if not groups:
        return _small_tiles(d, width, 64 if min(d, width) > 16 else 32)
    columns = {"d": d if d <= 128 else 32, "width": width, "out_d": d, "out_width": min(128, width)}
    if d == 128:  # a row takes so much shared memory that only one block fits
        return Tiles(128, 32, **columns, warps=8, registers=255)
    registers = {16: 96, 32: 128}.get(max(d, width), 255 if d < 128 else 240)
    return Tiles(64, 32, **columns, warps=4, registers=168 if d == width == 64 else registers)


def rows_tiles(d: int, width: int, groups: bool) -> Tiles:
    """Return tiles of the backward over rows; arguments as for `forward_tiles`."""
    if not groups:
        return _small_tiles(d, width, 64 if min(d, width) > 16 else 32)
    columns = {
        "d": d if d <= 128 else 32,
        "width": width if width <= 128 else 32,
        "out_d": min(128, d),
        "out_width": width,
    }
    registers = {16: 128, 32: 168, 64: 168, 128: 255}.get(max(d, width), 240)
    return Tiles(64, 32, **columns, warps=4, registers=registers)


def code_tiles(d: int, width: int, groups: bool) -> Tiles:
    """Return tiles of the backward over codes; arguments as for `forward_tiles`."""
    step = 32 if d == width <= 256 else 16
    if not groups:
        return _small_tiles(d, width, 32)._replace(rows=32, codes=64, d=min(step, d), width=min(step, width))
    columns = {
        "d": d if d <= 64 else step,
        # ptxas 12.8 forgets to set the address of an operand if 32 columns stay beside longer rows of keys.
        "width": width if width <= 64 and not (width == 32 and d > 64) else step,
        "out_d": min(64, d),
        "out_width": min(64, width),
    }
    return Tiles(32, 64, **columns, warps=4, registers=168 if max(d, width) == 16 else 255)


def _small_tiles(d: int, width: int, out: int) -> Tiles:
    """Return tiles whose operands fit in registers, with at most `out` columns of results."""
    columns = {"d": min(32, d), "width": min(32, width), "out_d": min(out, d), "out_width": min(out, width)}
    return Tiles(64, 32, **columns, warps=4, registers=255)
