"""Every search that the launcher can choose, and its companions, compiled for sm_80 and sm_90 without a GPU."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantizers.kernels.common.triton.device import Device
from quantizers.kernels.nearest.triton import exhaustive, frame, pack, search, settle
from quantizers.kernels.nearest.triton.tiles import BYTES, Layout, Tiles, layout, tiles
from tests.triton.aot import CAPABILITIES, SHARED_MEMORY, compile_for, main_loop, report, unset_registers
from tests.triton.interpreter import compiles_kernels

pytestmark = compiles_kernels

# At most so many registers a thread, and instructions a (row, code) pair in the main loop: all of them, since each
# takes an issue slot. Keys are the capability and the columns of resident rows, with or without those of ½‖e‖²,
# which otherwise costs one instruction a pair. 128 registers let two blocks share a multiprocessor. The bounds are
# what triton 3.6.0 or 3.7.1 needs, whichever needs more, and 2 % for another assembler: sm_80 keeps the operands
# of its matrix units in registers, and the nested loops of streamed rows keep sums, state and the addresses of
# both operands.
BOUNDS: dict[tuple[int, int | str, bool], tuple[int, float]] = {
    (90, 16, True): (128, 2.25),
    (90, 32, True): (128, 2.5),
    (90, 32, False): (128, 3.9),
    (90, 64, False): (128, 4.5),
    (90, 128, False): (128, 4.9),
    (90, 256, False): (128, 5.3),
    (90, "streamed", False): (254, 6.3),
    (80, 16, True): (128, 5.4),
    (80, 32, True): (128, 5.7),
    (80, 32, False): (168, 7.2),
    (80, 64, False): (168, 7.9),
    (80, 128, False): (168, 10.1),
    (80, 256, False): (168, 12.6),
    (80, "streamed", False): (254, 9.4),
}
POINTERS = {
    "centre_ptr": "*fp64",
    "spread_ptr": "*fp64",
    "lengths_ptr": "*i32",
    "listed_ptr": "*i64",
    "count_ptr": "*i32",
    "indices_ptr": "*i64",
    "group_ptr": "*i32",
    "x_columns_ptr": "*fp16",
    "e_columns_ptr": "*fp16",
}
ALL = {"list_ptr": None, "number_ptr": None}  # steps of the search; test_compiles_pruned.py compiles some
UNORDERED = {"row_order_ptr": None, "code_order_ptr": None}


def configuration(sm: int, d: int) -> tuple[Layout, Tiles]:
    device = Device(100, SHARED_MEMORY[sm])
    cut = layout(d, device)
    return cut, tiles(10**6, 1024, cut, device)


def key(sm: int, d: int) -> tuple[int, int | str, bool]:
    """The key of a configuration in BOUNDS."""
    cut, _ = configuration(sm, d)
    return sm, cut.width if cut.resident else "streamed", cut.bias_columns


def configurations() -> list[tuple[int, int]]:
    """(sm, channels) of each configuration that `layout` and `tiles` return: one width of channels for each."""
    found = {}
    for sm in CAPABILITIES:
        for d in range(400, 0, -1):
            found[(*key(sm, d), configuration(sm, d)[1])] = sm, d
    return list(found.values())


CONFIGURATIONS = configurations()


def compiled(fn: Any, pointers: dict[str, str], constants: dict[str, Any], sm: int, **options: Any) -> Any:
    """Pointers are float32 unless told otherwise; errors are float32 and all other run-time arguments i32."""
    kinds = {**POINTERS, **pointers}
    names = [name for name in fn.arg_names if name not in constants]
    types = {name: kinds.get(name, "*fp32") if name.endswith("_ptr") else "i32" for name in names}
    types |= {name: "fp32" for name in names if name.endswith("_error")}
    aligned = [name for name in names if name.endswith("_ptr")] + ["width"] * ("width" in names)
    return compile_for(fn, types, constants, sm, aligned=aligned, **options)


def fits(kernel: Any, sm: int, registers: int = 255) -> None:
    result = report(kernel, sm)
    assert result["spills"] == (0, 0)
    assert result["registers"] <= registers
    assert result["shared"] <= SHARED_MEMORY[sm]
    assert unset_registers(kernel) == []


@pytest.mark.parametrize(("sm", "d"), CONFIGURATIONS)
def test_search_compiles(sm: int, d: int) -> None:
    cut, size = configuration(sm, d)
    constants = {
        "BIAS": not cut.bias_columns,
        "RESIDENT": cut.resident,
        "BLOCK_N": size.block_n,
        "BLOCK_K": size.block_k,
        "BLOCK_D": size.block_d,
        **ALL,
    }
    pointers = {"x_ptr": "*fp16", "e_ptr": "*fp16"}
    kernel = compiled(search._search, pointers, constants, sm, num_warps=size.warps, num_stages=size.stages)
    registers, issued = BOUNDS[key(sm, d)]
    fits(kernel, sm, registers)
    loop = main_loop(kernel)
    assert loop["HGMMA" if sm == 90 else "HMMA"] > 0  # on matrix units, not emulated
    # A mask or a conversion in the loop, or predicates that go through registers, would each add one a pair.
    assert loop.total() <= issued * size.block_n * size.block_k / (32 * size.warps)


def test_each_configuration_has_bounds() -> None:
    assert sorted(map(str, BOUNDS)) == sorted(str(key(*each)) for each in CONFIGURATIONS)


@given(
    n=st.integers(1, 10**7),
    k=st.integers(1, 10**6),
    d=st.integers(1, 4096),
    multiprocessors=st.integers(1, 200),
    shared=st.sampled_from([99 * 1024, *SHARED_MEMORY.values()]),
)
def test_tiles_fill_the_device(n: int, k: int, d: int, multiprocessors: int, shared: int) -> None:
    device = Device(multiprocessors, shared)
    cut = layout(d, device)
    size = tiles(n, k, cut, device)
    assert cut.width % size.block_d == 0
    assert (size.block_d == cut.width) == cut.resident or cut.width <= size.block_d
    assert d + 3 * cut.bias_columns <= cut.width
    row = size.block_d * BYTES  # in a step
    held = (size.block_n if cut.resident else size.stages * size.block_n) * row
    assert held + size.stages * size.block_k * row <= shared
    steps = -(-k // size.block_k)
    rows = -(-n // size.block_n)
    assert 1 <= size.splits <= steps
    assert size.splits == 1 or rows * (size.splits - 1) < 4 * multiprocessors  # no split more than wanted
    assert rows * size.splits >= 4 * multiprocessors or size.splits == steps


@pytest.mark.parametrize(
    ("sm", "values", "d"), [(80, "*bf16", 8), (80, "*fp32", 64), (90, "*fp32", 3), (90, "*bf16", 300)]
)
def test_pack_compiles(sm: int, values: str, d: int) -> None:
    cut, _ = configuration(sm, d)
    rows, chunk = pack.block_sizes(cut)
    constants = {"BIAS": cut.bias_columns, "COLUMNS": cut.width, "ROWS": rows, "CHUNK": chunk, **UNORDERED}
    fits(compiled(pack._pack, {"x_ptr": values}, constants, sm), sm, 128)


@pytest.mark.parametrize("certify", [True, False])
@pytest.mark.parametrize(("sm", "d"), CONFIGURATIONS)
def test_settle_compiles(sm: int, d: int, certify: bool) -> None:
    cut, size = configuration(sm, d)
    constants = {
        "CERTIFY": certify,
        "CODES": certify,
        "BIAS": not cut.bias_columns,
        "COLUMNS": cut.width,
        "BLOCK_K": size.block_k,
        "ROWS": settle.rows_of(size.block_k),
        "SPLITS": settle.SPLITS,
        "CHUNK": settle.CHUNK,
        "CHANNELS": settle.CHANNELS,
        **UNORDERED,
    }
    options = {"num_warps": settle.WARPS, "maxnreg": settle.REGISTERS}
    fits(compiled(settle._settle, {}, constants, sm, **options), sm, settle.REGISTERS)


@pytest.mark.parametrize(("sm", "values"), [(80, "*fp32"), (90, "*fp64")])
def test_exhaustive_compiles(sm: int, values: str) -> None:
    sizes = {"ROWS": exhaustive.ROWS, "CODES": exhaustive.CODES, "CHANNELS": exhaustive.CHANNELS}
    pointers = {"x_ptr": values, "codes_ptr": values, "score_ptr": "*fp64", "nearest_ptr": "*i32"}
    score = compiled(exhaustive._score, pointers, sizes, sm, num_warps=exhaustive.WARPS, num_stages=2)
    fits(score, sm)
    assert main_loop(score)["DMMA"] > 0  # float64 on matrix units
    pointers |= {"chosen_ptr": values, "distance_ptr": values}
    constants = {**sizes, "STORE_CODES": True, "SHARES": exhaustive.SHARES}
    fits(compiled(exhaustive._finish, pointers, constants, sm, num_warps=exhaustive.WARPS, num_stages=1), sm)


@pytest.mark.parametrize("sm", CAPABILITIES)
def test_frame_compiles(sm: int) -> None:
    pointers = {f"{name}_ptr": "*fp64" for name in ("sum", "least", "most")}
    for width, one_pass in ((frame.WIDEST, True), (2 * frame.WIDEST, False)):
        channels, rows = frame.tile_of(width)
        constants = {"ONE_PASS": one_pass, "ROWS": rows, "CHANNELS": channels}
        fits(compiled(frame._summarize, pointers, constants, sm, num_warps=frame.WARPS), sm)
    fits(compiled(frame._combine, pointers, {"PARTS": frame.PARTS, "CHANNELS": frame.PART_CHANNELS}, sm), sm)
