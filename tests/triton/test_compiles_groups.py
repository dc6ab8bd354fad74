"""The searches by groups that the launcher can choose, and their companions, compiled for sm_80 and sm_90.

All of the exact mode, and of the other modes the narrowest and the widest: what lies between is the same with
other widths.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantizers.kernels.common.triton.device import Device
from quantizers.kernels.nearest.triton.groups import exhaustive, pack, search, settle
from quantizers.kernels.nearest.triton.groups.nearest import nearest_code, nearest_lookup
from quantizers.kernels.nearest.triton.groups.tiles import CLASSES, Layout, Tiles, layout, tiles
from quantizers.kernels.nearest.triton.precision import Mode
from tests.triton.aot import CAPABILITIES, SHARED_MEMORY, compile_for, main_loop, report
from tests.triton.interpreter import compiles_kernels
from tests.triton.variants import TorchKernels, compiled_again, recorded_launches

pytestmark = compiles_kernels

MODES: list[Mode] = ["exact", "tf32", "bf16"]
TWO_BLOCKS = 128  # registers a thread at most, so that two blocks of 8 warps share a multiprocessor
# Issued instructions of the main loop per pair of a row and a code, none left out, on sm_90: as counted, and 2 %
# for another version of the assembler. The other loop issues 9.6 (D = 8) and 12.5 (D = 64) in the exact mode.
ISSUED = {("exact", 8): 2.5, ("exact", 20): 2.5, ("exact", 64): 4.5, ("bf16", 8): 2.2, ("bf16", 256): 4.8}
OTHERS = {80: [256, 257], 90: [8, 64, 256, 257]}  # channels of the other modes
POINTERS = {
    "centre_ptr": "*fp64",
    "spread_ptr": "*fp64",
    "listed_ptr": "*i64",
    "count_ptr": "*i32",
    "indices_ptr": "*i64",
    "group_ptr": "*i32",
}


def configuration(sm: int, mode: Mode, d: int) -> tuple[Layout, Tiles]:
    device = Device(100, SHARED_MEMORY[sm])
    cut = layout(d, mode, device)
    return cut, tiles(10**6, 1024, cut, device)


def configurations() -> dict[tuple[Any, ...], tuple[int, Mode, int]]:
    """One width of each configuration that `layout` and `tiles` return. Modes share some."""
    found: dict[tuple[Any, ...], tuple[int, Mode, int]] = {}
    for sm in CAPABILITIES:
        for mode in MODES:
            for d in [8, 20, 64, 256, *range(1, 400)] if mode == "exact" else OTHERS[sm]:
                cut, size = configuration(sm, mode, d)
                width = cut.width if cut.resident else None
                key = sm, cut.values, cut.products, width, cut.bias_columns, size
                found.setdefault(key, (sm, mode, d))
    return found


CONFIGURATIONS = list(configurations().values())


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


@pytest.mark.parametrize(("sm", "mode", "d"), CONFIGURATIONS)
def test_search_compiles(sm: int, mode: Mode, d: int) -> None:
    cut, size = configuration(sm, mode, d)
    columns = "*bf16" if cut.values == "bf16" else "*fp32"
    constants = {
        "PRODUCTS": cut.products,
        "BIAS": not cut.bias_columns,
        "RESIDENT": cut.resident,
        "BLOCK_N": size.block_n,
        "BLOCK_K": size.block_k,
        "BLOCK_D": size.block_d,
    }
    pointers = {"x_ptr": columns, "e_ptr": columns}
    kernel = compiled(search._search, pointers, constants, sm, num_warps=size.warps, num_stages=size.stages)
    fits(kernel, sm, TWO_BLOCKS if cut.resident and sm == 90 else 255)
    loop = main_loop(kernel)
    assert loop["HGMMA" if sm == 90 else "HMMA"] > 0  # on matrix units, not emulated
    if sm == 90 and (mode, d) in ISSUED:
        pairs = size.block_n * size.block_k / (32 * size.warps)  # of a thread, in one step
        assert loop.total() <= ISSUED[mode, d] * pairs


def test_there_are_few_configurations() -> None:
    assert len(CONFIGURATIONS) <= 25
    assert {(90, *key) for key in ISSUED} <= set(CONFIGURATIONS)


@given(
    n=st.integers(1, 10**7),
    k=st.integers(1, 10**6),
    d=st.integers(1, 4096),
    mode=st.sampled_from(MODES),
    multiprocessors=st.integers(1, 200),
    shared=st.sampled_from([99 * 1024, *SHARED_MEMORY.values()]),
)
def test_tiles_fill_the_device(n: int, k: int, d: int, mode: Mode, multiprocessors: int, shared: int) -> None:
    device = Device(multiprocessors, shared)
    cut = layout(d, mode, device)
    size = tiles(n, k, cut, device)
    assert cut.width % size.block_d == 0
    assert (size.block_d == cut.width) == cut.resident or cut.width <= size.block_d
    assert cut.parts * d <= cut.columns
    assert cut.period * (cut.parts - 1) + d + 3 * cut.bias_columns <= cut.columns
    row = cut.columns // cut.width * size.block_d * (2 if cut.values == "bf16" else 4)  # bytes in a step
    held = (size.block_n if cut.resident else size.stages * size.block_n) * row
    assert held + size.stages * size.block_k * row <= shared
    steps = -(-k // size.block_k)
    rows = -(-n // size.block_n)
    assert 1 <= size.splits <= steps
    assert size.splits == 1 or rows * (size.splits - 1) < 4 * multiprocessors  # no split more than wanted
    assert rows * size.splits >= 4 * multiprocessors or size.splits == steps


@pytest.mark.parametrize(
    ("sm", "values", "d"), [(80, "*bf16", 8), (80, "*fp32", 64), (90, "*fp32", 3), (90, "*bf16", 256)]
)
def test_pack_compiles(sm: int, values: str, d: int) -> None:
    cut, _ = configuration(sm, "exact", d)
    rows, chunk = pack._block_sizes(cut)
    constants = {
        "PARTS": cut.parts,
        "PERIOD": cut.period,
        "LOW_X": 0,
        "LOW_E": 1 if cut.parts == 3 else 0,
        "BIAS": cut.bias_columns,
        "COLUMNS": cut.columns,
        "DROPPED_BITS": pack.DROPPED_BITS[cut.values],
        "ROWS": rows,
        "CHUNK": chunk,
    }
    columns = "*bf16" if cut.values == "bf16" else "*fp32"
    pointers = {"x_ptr": values, "x_columns_ptr": columns, "e_columns_ptr": columns}
    fits(compiled(pack._pack, pointers, constants, sm), sm, TWO_BLOCKS)


@pytest.mark.parametrize(
    ("sm", "block_k", "d", "certify"), [(90, 32, 256, False), (80, 128, 64, True), (90, 256, 256, True)]
)
def test_settle_compiles(sm: int, block_k: int, d: int, certify: bool) -> None:
    constants = {
        "CERTIFY": certify,
        "CODES": certify,
        "BLOCK_K": block_k,
        "ROWS": settle.ROWS,
        "SPLITS": settle.SPLITS,
        "BLOCKS": settle.BLOCKS,
        "CHANNELS": settle.channels_per_step(d, settle.ROWS * block_k // CLASSES),
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


@pytest.fixture
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    """Set PyTorch's precision of float32 products, and restore it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("precision", ["highest", "medium"], indirect=True)
@pytest.mark.parametrize("d", [8, 64, 300])
def test_each_kernel_is_compiled_once_for_all_sizes(precision: str, d: int) -> None:
    codebook = torch.empty(3, 1000, d)
    assert compiled_again(lambda n: nearest_lookup(torch.empty(3, n, d), codebook)) == {}
    assert compiled_again(lambda n: nearest_code(torch.empty(3, d, n + 1)[..., :n].mT, codebook)) == {}
    assert compiled_again(lambda size: nearest_code(torch.empty(3, 100, d), torch.empty(3, size, d))) == {}


@pytest.mark.parametrize(("precision", "most"), [("highest", 7), ("medium", 5)], indirect=["precision"])
def test_a_call_launches_few_kernels(precision: str, most: int) -> None:
    x, codebook = torch.empty(2, 5000, 24), torch.empty(2, 900, 24)
    for search_ in (nearest_code, nearest_lookup):
        with recorded_launches() as launches, TorchKernels() as others:
            search_(x, codebook)
        assert len(launches) + len(others.names) <= most, [launch.name for launch in launches] + others.names


def test_more_heads_than_an_axis_of_a_grid_can_have() -> None:
    with recorded_launches() as launches:
        for dtype in (torch.float32, torch.float64):
            x = torch.empty(70_000, 30, 2, dtype=dtype, device="meta")
            nearest_lookup(x, torch.empty(70_000, 50, 2, device="meta"))
    assert launches
    assert all(launch.fits for launch in launches)
