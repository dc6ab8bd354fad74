"""The pruned search without a GPU: its kernels compiled for sm_80 and sm_90, and what a call launches."""

import pytest
import torch

from quantizers.kernels.nearest.triton import pack, search, settle
from quantizers.kernels.nearest.triton.nearest import nearest_code, nearest_lookup
from quantizers.kernels.nearest.triton.pruned import coordinates, remaining
from quantizers.kernels.nearest.triton.pruned.order import FEW_CHANNELS, axes_of, leaf_of
from quantizers.kernels.nearest.triton.pruned.search import pruned_tiles
from quantizers.kernels.nearest.triton.tiles import Layout, Tiles
from tests.triton.aot import CAPABILITIES, main_loop
from tests.triton.interpreter import compiles_kernels
from tests.triton.pruned_inputs import order_of, pruned
from tests.triton.test_compiles_nearest import CONFIGURATIONS, compiled, configuration, fits, key
from tests.triton.variants import BATCH_SIZES, TorchKernels, compiled_again, recorded_launches

pytestmark = compiles_kernels

# At most so many registers a thread, and instructions a (row, code) pair in the main loop, as in
# test_compiles_nearest.py. A tile has half as many rows, and 128 codes on sm_90, 64 on sm_80.
BOUNDS: dict[tuple[int, int | str, bool], tuple[int, float]] = {
    (90, 16, True): (128, 2.6),
    (90, 32, True): (128, 2.9),
    (90, 32, False): (128, 4.1),
    (90, 64, False): (128, 4.4),
    (90, 128, False): (128, 4.8),
    (90, 256, False): (128, 6.5),
    (90, "streamed", False): (254, 8.6),
    (80, 16, True): (128, 5.6),
    (80, 32, True): (128, 6.5),
    (80, 32, False): (128, 7.4),
    (80, 64, False): (168, 8.4),
    (80, 128, False): (168, 10.5),
    (80, 256, False): (168, 14.9),
    (80, "streamed", False): (168, 10.5),
}
POINTERS = {
    "x_ptr": "*fp16",
    "e_ptr": "*fp16",
    "list_ptr": "*i32",
    "number_ptr": "*i32",
    "row_order_ptr": "*i64",
    "code_order_ptr": "*i32",
    "part_ptr": "*i32",
}


def tiles_for(sm: int, d: int) -> tuple[Layout, Tiles]:
    cut, full = configuration(sm, d)
    return cut, pruned_tiles(full, leaf_of(full, cut))


def loop_constants(cut: Layout, size: Tiles) -> dict[str, object]:
    sizes = {"BLOCK_N": size.block_n, "BLOCK_K": size.block_k, "BLOCK_D": size.block_d}
    return {"BIAS": not cut.bias_columns, "RESIDENT": cut.resident, **sizes}


@pytest.mark.parametrize(("sm", "d"), CONFIGURATIONS)
def test_search_compiles(sm: int, d: int) -> None:
    cut, size = tiles_for(sm, d)
    options = {"num_warps": size.warps, "num_stages": size.stages}
    kernel = compiled(search._search, POINTERS, loop_constants(cut, size), sm, **options)
    registers, issued = BOUNDS[key(sm, d)]
    fits(kernel, sm, registers)
    loop = main_loop(kernel)
    assert loop["HGMMA" if sm == 90 else "HMMA"] > 0  # on matrix units, not emulated
    assert loop["LDGSTS"] > 0  # codes are loaded ahead, though a list says which
    assert loop.total() <= issued * size.block_n * size.block_k / (32 * size.warps)


@pytest.mark.parametrize(("sm", "d"), CONFIGURATIONS)
def test_remaining_leaves_compile(sm: int, d: int) -> None:
    cut, size = tiles_for(sm, d)
    constants = {
        **loop_constants(cut, size),
        "USED": axes_of(d) + (d > FEW_CHANNELS),
        "SEEDS": remaining.SEEDS,
        "LEAVES": remaining.LEAVES,
    }
    kernel = compiled(remaining._remaining, POINTERS, constants, sm, num_warps=size.warps, num_stages=1)
    fits(kernel, sm)
    assert main_loop(kernel)["HGMMA" if sm == 90 else "HMMA"] > 0


@pytest.mark.parametrize(
    ("sm", "values", "d"), [(80, "*bf16", 8), (80, "*fp32", 64), (90, "*fp32", 3), (90, "*fp16", 300)]
)
def test_coordinates_compile(sm: int, values: str, d: int) -> None:
    constants = {
        "AXES": axes_of(d),
        "DISTANCE": d > FEW_CHANNELS,
        "ROWS": coordinates.ROWS,
        "CHANNELS": coordinates.CHANNELS,
    }
    tree = {"split_ptr": "*i32", "plane_ptr": "*fp64", "part_ptr": "*i32", "order_ptr": "*i32"}
    place = compiled(coordinates._place, {**tree, "x_ptr": values}, constants, sm)
    fits(place, sm, 128)
    boxes = compiled(coordinates._leaf_boxes, {**tree, "codes_ptr": values}, {**constants, "LEAF": 128}, sm)
    fits(boxes, sm, 128)


@pytest.mark.parametrize(("sm", "d"), [(80, 8), (80, 256), (90, 29), (90, 64)])
def test_ordered_packing_and_settling_compile(sm: int, d: int) -> None:
    cut, size = tiles_for(sm, d)
    rows, chunk = pack.block_sizes(cut)
    constants = {"BIAS": cut.bias_columns, "COLUMNS": cut.width, "ROWS": rows, "CHUNK": chunk}
    fits(compiled(pack._pack, {**POINTERS, "x_ptr": "*fp32"}, constants, sm), sm, 128)
    constants = {
        "CERTIFY": True,
        "CODES": True,
        "BIAS": not cut.bias_columns,
        "COLUMNS": cut.width,
        "BLOCK_K": size.block_k,
        "ROWS": settle.rows_of(size.block_k),
        "SPLITS": settle.SPLITS,
        "CHUNK": settle.CHUNK,
        "CHANNELS": settle.CHANNELS,
    }
    options = {"num_warps": settle.WARPS, "maxnreg": settle.REGISTERS}
    fits(compiled(settle._settle, {**POINTERS, "x_ptr": "*fp32"}, constants, sm, **options), sm, settle.REGISTERS)


@pytest.mark.parametrize("sm", CAPABILITIES)
def test_each_configuration_has_bounds(sm: int) -> None:
    found = {key(*each) for each in CONFIGURATIONS if each[0] == sm}
    assert {each for each in BOUNDS if each[0] == sm} == found


@pytest.mark.parametrize(("mode", "most"), [("highest", 10), ("high", 8), ("medium", 8)])
def test_a_call_launches_few_kernels(mode: str, most: int) -> None:
    """Three more than the search of all codes, for boxes, for the places of rows and for lists of leaves, and a
    sort, which PyTorch makes of several kernels.
    """
    torch.set_float32_matmul_precision(mode)
    x, codebook = torch.empty(2, 5000, 24), torch.randn(2, 900, 24)
    with pruned(x, codebook, order_of(codebook)):
        for call in (nearest_code, nearest_lookup):
            with recorded_launches() as launches, TorchKernels() as others:
                call(x, codebook)
            assert len(launches) <= most, [launch.name for launch in launches]
            assert others.names == ["sort"]


@pytest.mark.parametrize("d", [5, 64, 300])
def test_each_kernel_is_compiled_once_for_all_batch_sizes(d: int) -> None:
    codebook = torch.randn(3, 1000, d)
    order = order_of(codebook)

    def call(n: int) -> None:
        x = torch.empty(3, n, d)
        with pruned(x, codebook, order):
            nearest_code(x, codebook)

    assert compiled_again(call) == {}


def test_each_kernel_is_compiled_once_for_all_codebook_sizes() -> None:
    orders = {size: order_of(torch.randn(2, size, 8)) for size in BATCH_SIZES}

    def call(size: int) -> None:
        x, codebook = torch.empty(2, 100, 8), torch.empty(2, size, 8)
        with pruned(x, codebook, orders[size]):
            nearest_code(x, codebook)

    assert compiled_again(call) == {}
