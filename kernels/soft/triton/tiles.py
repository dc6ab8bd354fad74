"""Tile sizes of the soft kernels, by the widths of packed matrices."""

from typing import Any, NamedTuple


class Tiles(NamedTuple):
    """Tile sizes of one program of a soft kernel."""

    rows: int
    codes: int
    d: int  # columns of x and keys in a step of their product; all of them stay in shared memory if they fit
    width: int  # columns of values, likewise
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


STAGES = 2


def forward_tiles(d: int, width: int) -> Tiles:
    """Return tiles of the forward for packed matrices of d and `width` columns."""
    columns = {"d": d if d <= 128 else 32, "width": width, "out_d": d, "out_width": min(128, width)}
    if d == 128:  # rows fill so much shared memory that only one block fits
        return Tiles(128, 32, **columns, warps=8, registers=255)
    registers = 168 if d == width == 64 else {16: 96, 32: 128}.get(max(d, width), 255)
    return Tiles(64, 32, **columns, warps=4, registers=registers)


def rows_tiles(d: int, width: int) -> Tiles:
    """Return tiles of the backward over rows for packed matrices of d and `width` columns."""
    widest = max(d, width)
    columns = {
        "d": d if d <= 128 else 64,
        "width": width if width <= 128 else 64,
        "out_d": min(128, d),
        "out_width": width,
    }
    return Tiles(64, 32, **columns, warps=4, registers={16: 128, 32: 168, 64: 168}.get(widest, 255))


def code_tiles(d: int, width: int) -> Tiles:
    """Return tiles of the backward over codes for packed matrices of d and `width` columns."""
    columns = {
        "d": d if d <= 64 else 32,
        "width": width if width <= 64 else 32,
        "out_d": min(64, d),
        "out_width": min(64, width),
    }
    return Tiles(32, 64, **columns, warps=4, registers=168 if max(d, width) == 16 else 255)
