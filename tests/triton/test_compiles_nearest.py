"""Every search that the launcher can choose, and its companions, compiled for sm_80 and sm_90 without a GPU."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantizers.kernels.nearest.triton import decide, pack, rescan, search
from quantizers.kernels.nearest.triton.precision import Mode
from quantizers.kernels.nearest.triton.tiles import Tiles, tiles
from tests.triton.aot import CAPABILITIES, SHARED_MEMORY, compile_for, main_loop, report
from tests.triton.interpreter import compiles_kernels

pytestmark = compiles_kernels

MODES: list[Mode] = ["exact", "tf32", "bf16"]


def configurations() -> list[tuple[int, Mode, bool, Tiles]]:
    """All that `tiles` returns, up to the number of splits, which is no compile-time constant."""
    found = {}
    for sm in CAPABILITIES:
        for mode in MODES:
            for d in range(1, 400):
                cut = tiles(10**6, 1024, d, mode, 100, SHARED_MEMORY[sm])
                found[sm, mode, d <= cut.block_d, cut] = None
    return list(found)


CONFIGURATIONS = configurations()

# At most so many registers a thread, and instructions a (row, code) pair in the main loop: all of them, since each
# takes an issue slot. 128 registers let two blocks share a multiprocessor, which all resident rows reach on sm_90.
# The other bounds are what triton 3.6.0 or 3.7.1 needs, whichever needs more: sm_80 keeps the operands of its
# matrix units in registers, and the nested loops of streamed rows keep sums, minima and the addresses of both
# operands.
BOUNDS: dict[tuple[int, Mode, int | str], tuple[int, float]] = {
    (90, "exact", 16): (128, 11.9),
    (90, "exact", 32): (128, 12.9),
    (90, "exact", 64): (128, 16.5),
    (90, "exact", "streamed"): (254, 14.5),
    (90, "tf32", 16): (128, 6.2),
    (90, "tf32", 32): (128, 6.5),
    (90, "tf32", 64): (128, 7.0),
    (90, "tf32", 128): (128, 8.3),
    (90, "tf32", 256): (128, 15.0),
    (90, "tf32", "streamed"): (220, 13.5),
    (90, "bf16", 16): (128, 6.0),
    (90, "bf16", 32): (128, 6.2),
    (90, "bf16", 64): (128, 6.5),
    (90, "bf16", 128): (128, 7.0),
    (90, "bf16", 256): (128, 8.3),
    (90, "bf16", "streamed"): (220, 13.5),
    (80, "exact", 16): (128, 10.4),
    (80, "exact", 32): (168, 12.5),
    (80, "exact", 64): (216, 17.8),
    (80, "exact", "streamed"): (206, 19.9),
    (80, "tf32", 16): (172, 5.6),
    (80, "tf32", 32): (160, 6.4),
    (80, "tf32", 64): (164, 8.2),
    (80, "tf32", 128): (170, 11.9),
    (80, "tf32", "streamed"): (220, 15.6),
    (80, "bf16", 16): (128, 5.3),
    (80, "bf16", 32): (175, 5.6),
    (80, "bf16", 64): (174, 6.4),
    (80, "bf16", 128): (164, 8.2),
    (80, "bf16", 256): (170, 11.9),
    (80, "bf16", "streamed"): (220, 15.6),
}


def fits(kernel: Any, sm: int) -> None:
    result = report(kernel, sm)
    assert result["spills"] == (0, 0)
    assert result["registers"] <= 255
    assert result["shared"] <= SHARED_MEMORY[sm]


def types(fn: Any, pointers: dict[str, str], constants: dict[str, Any]) -> dict[str, str]:
    """The type of each run-time argument: pointers as told or else to float32, the rest i32."""
    names = [name for name in fn.arg_names if name not in constants]
    return {name: pointers.get(name, "*fp32") if name.endswith("_ptr") else "i32" for name in names}


def compiled(fn: Any, pointers: dict[str, str], constants: dict[str, Any], sm: int, **options: Any) -> Any:
    signature = types(fn, pointers, constants)
    aligned = [name for name in signature if name.endswith("_ptr")] + ["width"] * ("width" in signature)
    return compile_for(fn, signature, constants, sm, aligned=aligned, **options)


@pytest.mark.parametrize(("sm", "mode", "resident", "cut"), CONFIGURATIONS)
def test_search_compiles(sm: int, mode: Mode, resident: bool, cut: Tiles) -> None:
    half = "*bf16" if mode == "bf16" else "*fp32"
    pointers = {f"{name}_{part}_ptr": half for name in "xe" for part in ("high", "low")}
    constants = {
        "EXACT": mode == "exact",
        "RESIDENT": resident,
        "BLOCK_N": cut.block_n,
        "BLOCK_K": cut.block_k,
        "BLOCK_D": cut.block_d,
    }
    kernel = compiled(
        search._search,
        {**pointers, "index_ptr": "*i32"},
        constants,
        sm,
        num_warps=cut.warps,
        num_stages=cut.stages,
    )
    fits(kernel, sm)
    registers, issued = BOUNDS[sm, mode, cut.block_d if resident else "streamed"]
    assert report(kernel, sm)["registers"] <= registers
    loop = main_loop(kernel)
    assert loop["HGMMA" if sm == 90 else "HMMA"] > 0  # on matrix units, not emulated
    pairs = cut.block_n * cut.block_k // (32 * cut.warps)  # of a thread, in one step
    if mode == "exact":
        # (10) assumes that the codes' lengths are added after the products, not before: one FFMA a pair.
        assert loop["FFMA"] >= pairs
    # A mask or a conversion in the loop, or predicates that go through registers, would each add one a pair.
    assert loop.total() <= issued * pairs


def test_there_are_few_configurations() -> None:
    assert len({(mode, resident, cut) for _, mode, resident, cut in CONFIGURATIONS}) <= 36


@given(
    n=st.integers(1, 10**7),
    k=st.integers(1, 10**6),
    d=st.integers(1, 4096),
    mode=st.sampled_from(MODES),
    multiprocessors=st.integers(1, 200),
    shared=st.sampled_from(list(SHARED_MEMORY.values())),
)
def test_tiles_fill_the_device(n: int, k: int, d: int, mode: Mode, multiprocessors: int, shared: int) -> None:
    cut = tiles(n, k, d, mode, multiprocessors, shared)
    steps = -(-k // cut.block_k)
    assert 1 <= cut.splits <= steps
    assert d <= cut.block_d or cut.block_d >= 32
    rows = -(-n // cut.block_n)
    assert cut.splits == 1 or rows * (cut.splits - 1) < 4 * multiprocessors  # no split more than wanted
    assert rows * cut.splits >= 4 * multiprocessors or cut.splits == steps


@pytest.mark.parametrize("sm", CAPABILITIES)
@pytest.mark.parametrize("values", ["*fp32", "*bf16"])
@pytest.mark.parametrize("mode", MODES)
def test_pack_compiles(sm: int, values: str, mode: Mode) -> None:
    half = "*bf16" if mode == "bf16" else "*fp32"
    pointers = {f"{name}_{part}_ptr": half for name in "xe" for part in ("high", "low")}
    pointers |= {"centre_ptr": "*fp64", "spread_ptr": "*fp64", "longest_ptr": "*i32"}
    pointers |= {"x_ptr": values, "codes_ptr": "*fp32"}
    for width, one_pass in ((pack.WIDEST, True), (2 * pack.WIDEST, False)):
        channels, rows = pack.tile_of(width, pack.TILE)
        constants = {"MODE": mode, "ONE_PASS": one_pass, "ROWS": rows, "CHANNELS": channels}
        fits(compiled(pack._pack, pointers, constants, sm, num_warps=pack.WARPS), sm)


@pytest.mark.parametrize("sm", CAPABILITIES)
def test_frame_compiles(sm: int) -> None:
    pointers = {f"{name}_ptr": "*fp64" for name in ("sum", "least", "most", "centre", "spread")}
    pointers |= {"count_ptr": "*i32", "longest_ptr": "*i32", "undecided_ptr": "*i64"}
    for width, one_pass in ((pack.WIDEST, True), (2 * pack.WIDEST, False)):
        channels, rows = pack.tile_of(width, pack.SUMMARY_TILE)
        constants = {"ONE_PASS": one_pass, "ROWS": rows, "CHANNELS": channels}
        fits(compiled(pack._summarize, pointers, constants, sm, num_warps=pack.WARPS), sm)
    fits(compiled(pack._combine, pointers, {"PARTS": pack.PARTS, "CHANNELS": pack.PART_CHANNELS}, sm), sm)


@pytest.mark.parametrize("sm", CAPABILITIES)
@pytest.mark.parametrize("certify", [True, False])
@pytest.mark.parametrize("codes", [True, False])
def test_decide_compiles(sm: int, certify: bool, codes: bool) -> None:
    pointers = {"index_ptr": "*i32", "longest_ptr": "*i32", "x_ptr": "*bf16"}
    pointers |= {f"{name}_ptr": "*i64" for name in ("indices", "undecided", "count")}
    constants = {"SUMS": 3, "CERTIFY": certify, "CODES": codes, "ROWS": decide.ROWS, "CHANNELS": decide.CHANNELS}
    fits(compiled(decide._decide, pointers, constants, sm, num_warps=decide.WARPS), sm)


@pytest.mark.parametrize("sm", CAPABILITIES)
@pytest.mark.parametrize("values", ["*bf16", "*fp32", "*fp64"])
def test_rescan_compiles(sm: int, values: str) -> None:
    results = "*fp64" if values == "*fp64" else "*fp32"
    pointers = {"x_ptr": values, "codes_ptr": values, "chosen_ptr": results, "distance_ptr": results}
    pointers |= {f"{name}_ptr": "*i64" for name in ("listed", "count", "indices")} | {"lowest_ptr": "*i32"}
    pointers |= {f"{name}_ptr": "*fp64" for name in ("nearest", "lowest_squares")}
    scanned = {"ROWS": rescan.ROWS, "CODES": rescan.CODES}
    fits(compiled(rescan._scan, pointers, scanned, sm, num_warps=rescan.WARPS), sm)
    settled = {"WITH_CODES": True, "SHARES": rescan.SHARES, "CHANNELS": rescan.CHANNELS}
    fits(compiled(rescan._settle, pointers, scanned | settled, sm, num_warps=rescan.WARPS), sm)
