"""The kernels of soft codes, compiled for sm_80 and sm_90 without a GPU in every configuration of the launcher."""

from itertools import product
from typing import Any

import pytest

from quantizers.kernels.soft.triton import code_gradients, forward, pieces, row_gradients, tiles
from quantizers.kernels.soft.triton.problem import Problem, Saved
from tests.triton.aot import CAPABILITIES, SHARED_MEMORY, compile_for, main_loop, report, unset_registers
from tests.triton.interpreter import compiles_kernels

pytestmark = [compiles_kernels, pytest.mark.slow]

FUNCTIONS = {
    "forward": (forward._forward_kernel, tiles.forward_tiles),
    "rows": (row_gradients._rows_kernel, tiles.rows_tiles),
    "codes": (code_gradients._codes_kernel, tiles.code_tiles),
}
WIDTHS = (16, 32, 64, 128, 256)  # of packed matrices
WIDEST = 384  # still wider ones have its tiles

# With noise on sm_90, at most so many registers a thread, and instructions a (row, code) pair in the main loop, by
# kernel and width of both matrices: all instructions, since each takes an issue slot. The bounds are what triton
# 3.6.0 or 3.7.1 needs, whichever needs more, and 2 %. With 128 registers, four blocks of four warps share a
# multiprocessor; with 168, three; with 255, two.
BOUNDS: dict[tuple[str, int], tuple[int, float]] = {
    ("forward", 16): (96, 57.4),
    ("forward", 32): (128, 60.0),
    ("forward", 64): (168, 65.9),
    ("forward", 128): (255, 76.5),
    ("rows", 16): (128, 54.3),
    ("rows", 32): (168, 56.1),
    ("rows", 64): (168, 68.5),
    ("rows", 128): (255, 92.2),
    ("codes", 16): (168, 69.8),
    ("codes", 32): (255, 73.4),
    ("codes", 64): (255, 81.6),
}
PAIRS = [pair for pair in product(WIDTHS, WIDTHS) if pair[0] != pair[1]] + [(256, WIDEST)]
PACKED = ("x", "keys", "values")  # and the gradient of the value in `problem`


def pointer(name: str, dtype: str, packed: bool) -> str:
    """The type of a pointer argument without its suffix; `dtype` is that of inputs and results."""
    if name in ("seed", "indices"):
        return "*i64"
    return "*bf16" if packed else dtype


def signature(function: Any, constants: dict[str, Any], dtype: str) -> tuple[dict[str, Any], list[Any]]:
    """The types of the run-time arguments, and those that are aligned to 16 bytes or divisible by 16."""
    types: dict[str, Any] = {}
    aligned: list[Any] = []
    tuples = {"problem": Problem._fields, "saved": Saved._fields}
    for name in function.arg_names:
        if name in constants:
            continue
        if name in tuples:
            packed = (*PACKED, "value_gradient") if name == "problem" else ()
            types[name] = tuple(pointer(field, "*fp32", field in packed) for field in tuples[name])
            places = [i for i, field in enumerate(tuples[name]) if field not in ("seed", "temperature")]
            aligned += [(name, place) for place in places]
        elif name.endswith("_ptr"):
            field = name.removesuffix("_ptr")
            types[name] = pointer(field, dtype if field == "x_gradient" else "*fp32", field in PACKED)
            aligned += [name] if field not in ("seed", "temperature") else []
        else:
            types[name] = "i32"
            aligned += [name] if name.startswith("padded") else []
    return types, aligned


def compiled(
    kernel: str, d: int, width: int, /, noisy: bool = True, sm: int = 90, dtype: str = "*fp32", **sizes: int
) -> tuple[Any, tiles.Tiles]:
    """The kernel for packed matrices of d and width columns, and its tiles.

    Args:
        sizes: integer arguments of the kernel that are constants.
    """
    function, choose = FUNCTIONS[kernel]
    chosen = choose(d, width, sm == 90)
    constants = {"NOISY": noisy, "D": d, "V": width, **chosen.constants(), **sizes}
    types, aligned = signature(function, constants, dtype)
    return compile_for(function, types, constants, sm, aligned=aligned, **chosen.options()), chosen


def fits(kernel: Any, sm: int, registers: int = 255) -> None:
    result = report(kernel, sm)
    assert result["spills"] == (0, 0), result
    assert result["registers"] <= registers, result
    assert result["shared"] <= SHARED_MEMORY[sm], result
    assert unset_registers(kernel) == []


@pytest.mark.parametrize(("kernel", "width"), BOUNDS)
def test_registers_and_instructions_of_a_pair(kernel: str, width: int) -> None:
    loaded, sizes = compiled(kernel, width, width)
    registers, issued = BOUNDS[kernel, width]
    fits(loaded, 90, registers)
    loop = main_loop(loaded)
    assert loop["HGMMA"] > 0
    assert loop["HMMA"] == 0  # all products on a whole warp group's matrix unit
    assert loop["SHFL"] <= 4  # the maximum of two rows; sums wait until after the loop
    assert loop["BAR"] <= 5
    assert loop.total() <= issued * sizes.rows * sizes.codes / (32 * sizes.warps)
    # The first logarithm of the noise takes this instruction only where it is accurate: noise.py.
    assert loaded.asm["ptx"].count("lg2.approx.ftz.f32") > 0


@pytest.mark.parametrize("sm", [90, pytest.param(80, marks=pytest.mark.long)])
@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize(("d", "width"), [(width, width) for width in (*WIDTHS, WIDEST)])
@pytest.mark.parametrize("kernel", FUNCTIONS)
def test_matrices_of_one_width(kernel: str, d: int, width: int, noisy: bool, sm: int) -> None:
    fits(compiled(kernel, d, width, noisy=noisy, sm=sm)[0], sm)


@pytest.mark.long
@pytest.mark.parametrize("sm", CAPABILITIES)
@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize(("d", "width"), PAIRS)
@pytest.mark.parametrize("kernel", FUNCTIONS)
def test_matrices_of_two_widths(kernel: str, d: int, width: int, noisy: bool, sm: int) -> None:
    fits(compiled(kernel, d, width, noisy=noisy, sm=sm)[0], sm)


@pytest.mark.parametrize("dtype", ["*bf16", "*fp16"])
def test_results_in_16_bits(dtype: str) -> None:
    fits(compiled("rows", 16, 16, dtype=dtype)[0], 90)


@pytest.mark.parametrize("sizes", [{"d": 1}, {"width": 1}, {"d": 1, "width": 1}], ids=str)
@pytest.mark.parametrize("kernel", FUNCTIONS)
def test_one_channel(kernel: str, sizes: dict[str, int]) -> None:
    """The one size that a launch turns into a constant."""
    function = FUNCTIONS[kernel][0]
    fits(
        compiled(kernel, 16, 16, **{name: size for name, size in sizes.items() if name in function.arg_names})[0],
        90,
    )


def resolved(sizes: tiles.Tiles) -> tiles.Tiles:
    """Tiles without what only bounds the widths of matrices."""
    return sizes._replace(out_d=0, out_width=0, d=min(sizes.d, 128), width=min(sizes.width, 128))


@pytest.mark.parametrize("groups", [True, False])
@pytest.mark.parametrize("kernel", FUNCTIONS)
def test_wider_matrices_take_the_widest_tiles(kernel: str, groups: bool) -> None:
    """So the tests above see every configuration."""
    _, choose = FUNCTIONS[kernel]
    for widths in product((*WIDTHS, WIDEST, 512, 2048), repeat=2):
        narrow = (min(WIDEST, width) for width in widths)
        assert resolved(choose(*widths, groups)) == resolved(choose(*narrow, groups))


@pytest.mark.parametrize("dtype", ["*fp32", "*bf16"])
@pytest.mark.parametrize("sm", CAPABILITIES)
def test_pack(sm: int, dtype: str) -> None:
    types: dict[str, Any] = dict.fromkeys(pieces._pack.arg_names, "i32")
    types |= {"matrices": (dtype,) * 4, "outs": ("*bf16",) * 4, "columns": ("i32",) * 4, "widths": ("i32",) * 4}
    types |= {"bias_ptr": dtype, "packed_bias_ptr": "*fp32"}
    aligned = [(name, i) for name in ("matrices", "outs", "widths") for i in range(4)]
    constants = {"ROW_MATRICES": 2, "MATRICES": 4}
    kernel = compile_for(
        pieces._pack, types, constants, sm, aligned=[*aligned, "packed_bias_ptr", "padded", "padded_size"]
    )
    fits(kernel, sm, 96)


def test_a_kernel_short_of_registers_is_seen_to_spill() -> None:
    function, choose = FUNCTIONS["codes"]
    sizes = choose(16, 16, True)._replace(registers=96)
    constants = {"NOISY": True, "D": 16, "V": 16, **sizes.constants()}
    types, aligned = signature(function, constants, "*fp32")
    kernel = compile_for(function, types, constants, aligned=aligned, **sizes.options())
    assert min(report(kernel)["spills"]) > 0
