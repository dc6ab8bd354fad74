"""All kernels but those of the search and of soft codes, compiled ahead of time in every configuration that a
launcher chooses.

`make test` compiles for one capability, `make fuzz` for all.

None may spill registers, read one that it has not set, or ask for more shared memory than a block has, and
logarithms must be accurate ones.
"""

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from quantizers.kernels.averages import triton as averages
from quantizers.kernels.highest import triton as highest
from quantizers.kernels.k_nearest import triton as k_nearest
from quantizers.kernels.levels import triton as levels
from quantizers.kernels.nearest.triton import lookup_gradient
from quantizers.kernels.rotation import triton as rotation
from quantizers.kernels.rows import triton as rows
from quantizers.kernels.sums import triton as sums
from tests.triton.aot import CAPABILITIES, SHARED_MEMORY, _unset_registers, compile_for, report, unset_registers
from tests.triton.interpreter import compiles_kernels

pytestmark = [compiles_kernels, pytest.mark.slow]

# Types of arguments that do not follow the inputs' dtype; counts are int32.
TYPES = {
    "indices_ptr": "*i64",
    "levels_ptr": "*i64",
    "index_ptr": "*i64",
    "order_ptr": "*i64",
    "starts_ptr": "*i64",
    "bins_ptr": "*i32",
    "partial_ptr": "*fp64",
    "slack_ptr": "*fp64",
    "decay_ptr": "*fp64",
    "decay": "fp64",
    "factor": "fp64",
    "totals_ptr": "*fp64",
    "new_totals_ptr": "*fp64",
    "changes_ptr": "*i32",
    "fits_ptr": "*i32",
    "moves_ptr": "*i32",
    "valid_ptr": "*i1",
    "mask_ptr": "*i1",
    "numbers_ptr": "*i64",
    "divisor_ptr": "*i64",
}
_capability: ContextVar[int] = ContextVar("_capability")
ONE = {"d": 1}  # the one size that a launch turns into a constant
UNALIGNED = ("decay_ptr", "divisor_ptr")  # 0-d tensors


@pytest.fixture(autouse=True, params=[90, pytest.param(80, marks=pytest.mark.long)], ids="sm_{}".format)
def capability(request: pytest.FixtureRequest) -> Iterator[int]:
    """What `check` compiles for."""
    assert request.param in CAPABILITIES
    token = _capability.set(request.param)
    yield request.param
    _capability.reset(token)


def types(kernel: Any, constants: dict[str, Any], dtype: str = "*fp32") -> dict[str, str]:
    """The type of each run-time argument: that of TYPES, or else a pointer to `dtype` or i32."""
    names = [name for name in kernel.arg_names if name not in constants]
    return {name: TYPES.get(name, dtype if name.endswith("_ptr") else "i32") for name in names}


def aligned_pointers(signature: dict[str, str]) -> list[str]:
    """All pointers but those to 0-d tensors, which may lie anywhere."""
    return [name for name in signature if name.endswith("_ptr") and name not in UNALIGNED]


def check(
    kernel: Any,
    constants: dict[str, Any],
    dtype: str = "*fp32",
    aligned: bool = True,
    registers: int = 255,
    own_types: dict[str, str] | None = None,
    **options: int,
) -> None:
    """Compile `kernel` for the fixture's capability, with inputs and results of `dtype`; `aligned` says that their
    channels are a multiple of 16, which the compiler then uses. `registers` is the most that a thread may have."""
    signature = types(kernel, constants, dtype) | (own_types or {})
    divisible = aligned_pointers(signature)
    divisible += [name for name in signature if name in ("d", "width") and aligned]
    sm = _capability.get()
    compiled = compile_for(kernel, signature, constants, sm=sm, aligned=divisible, **options)
    result = report(compiled, sm)
    said = f"{kernel.__name__} {constants} sm_{sm}: {result}"
    assert result["spills"] == (0, 0), said
    assert result["registers"] <= registers, said
    assert result["shared"] <= SHARED_MEMORY[sm], said
    assert "lg2.approx.f32" not in compiled.asm["ptx"], said  # absolute, not relative accuracy near 1
    assert unset_registers(compiled) == [], said


def test_registers_that_nothing_has_set_are_seen() -> None:
    """Of a product whose operand's address ptxas forgot to set."""
    lines = [
        "ULDC UR4, c[0x0][0x210]",
        "UIADD3 UR50, UP0, UR50, 0x2, URZ",
        "HGMMA.64x8x8.F32.TF32 R24, R32, gdesc[UR2], R24",
    ]
    listing = "".join(f"        /*{16 * i:04x}*/    {line} ;\n" for i, line in enumerate(lines))
    assert _unset_registers(listing) == lines[1:]  # the product reads UR4, which is set, and UR5
    assert _unset_registers(listing.replace("UR50, 0x2", "UR4, 0x2").replace("ULDC UR4", "ULDC.64 UR4")) == []


@pytest.mark.parametrize("dtype", ["*fp32", "*fp64"])
def test_highest_score(dtype: str) -> None:
    sizes = {"BLOCK_N": highest.BLOCK_N, "BLOCK_K": highest.BLOCK_K, "CHUNK": highest.CHUNK}
    check(highest._highest_kernel, sizes, dtype)


@pytest.mark.parametrize("channels", [1, 16])
def test_k_nearest(channels: int) -> None:
    constants = {"CODES": k_nearest.CODES, **(ONE if channels == 1 else {})}
    check(k_nearest._one_by_one, constants, "*fp64", registers=64, own_types={"uncertain_ptr": "*i1"})


@pytest.mark.parametrize("dtype", ["*fp32", "*fp64"])
@pytest.mark.parametrize("channels", [1, 8])
def test_levels(channels: int, dtype: str) -> None:
    block_n, block_d = levels._tile(channels)
    for kernel in (levels._round_kernel, levels._slope_kernel):
        constants = {"SLOPE": 0.8, "BLOCK_N": block_n, "BLOCK_D": block_d, **(ONE if channels == 1 else {})}
        check(kernel, constants, dtype, aligned=False)


@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(1, "*fp32"), (64, "*fp32"), (64, "*bf16"), (64, "*fp64"), (2048, "*fp32"), (4096, "*fp32")],
)
def test_rotation(channels: int, dtype: str) -> None:
    block_n, block_d = rotation._tile(channels)
    constants = {
        "BLOCK_N": block_n,
        "BLOCK_D": block_d,
        "WHOLE": channels <= block_d,
        **(ONE if channels == 1 else {}),
    }
    check(rotation._rotate_kernel, constants, dtype)


@pytest.mark.parametrize("dtype", ["*fp32", "*bf16", "*fp64"])
@pytest.mark.parametrize("channels", [1, 64, 2048])
def test_rows(channels: int, dtype: str) -> None:
    block_n, block_d = rows._tile(channels)
    constants = {"BLOCK_N": block_n, "BLOCK_D": block_d, **(ONE if channels == 1 else {})}
    wide = "*fp64" if dtype == "*fp64" else "*fp32"
    check(rows._finite_kernel, constants | {"HAS_MASK": True}, dtype, own_types={"vectors_ptr": wide})
    check(rows._marked_kernel, constants | {"COLUMNS": 2}, wide)
    check(rows._gradient_kernel, constants, dtype, aligned=False, own_types={"gradient_ptr": wide})


@pytest.mark.parametrize("dtype", ["*fp32", "*fp64"])
def test_mean_of_losses(dtype: str) -> None:
    check(rows._partial_kernel, {"LOSSES": rows.LOSSES}, dtype)
    check(rows._mean_kernel, {"PARTS": rows.MOST_PARTS}, dtype)
    check(rows._mean_gradient_kernel, {"LOSSES": rows.LOSSES}, dtype)


@pytest.mark.parametrize("dtype", ["*fp32", "*bf16", "*fp64"])
@pytest.mark.parametrize("channels", [1, 8, 16, 32, 256])
def test_sums(channels: int, dtype: str) -> None:
    """The loops hold one tile of float64 sums, hence few registers."""
    block, block_d = sums._tile(channels)
    single = ONE if channels == 1 else {}
    constants = {"PIECE": sums.PIECE, "BLOCK_R": block, "BLOCK_D": block_d, **single}
    check(sums._piece_kernel, constants, dtype, registers=64)
    check(sums._code_kernel, constants, dtype, registers=80, num_warps=sums._warps(block_d))
    check(sums._average_kernel, {"BLOCK_K": block, "BLOCK_D": block_d, **single}, dtype, registers=64)


@pytest.mark.parametrize("keys", ["*i32", "*i64"])
def test_runs_of_sums(keys: str) -> None:
    check(sums._key_kernel, {"BINS": sums.BINS}, registers=64, own_types={"bins_ptr": keys})
    for sizes in ({}, {"size_ptr": None, "totals_ptr": None}):
        check(sums._start_kernel, {"BINS": sums.BINS, **sizes}, registers=64, own_types={"bins_ptr": keys})


@pytest.mark.parametrize("dtype", ["*fp32", "*fp64"])
@pytest.mark.parametrize("channels", [1, 3, 64])
def test_averages(channels: int, dtype: str) -> None:
    sizes = {"PARTS": averages.PARTS, "BLOCK_K": averages.CODES, "BLOCK_D": averages._block(channels)}
    constants = {"EPSILON": 1e-5, **sizes, **(ONE if channels == 1 else {})}
    for is_cosine in (False, True):
        check(averages._average_kernel, constants | {"IS_COSINE": is_cosine}, dtype, registers=168)
    check(averages._write_kernel, constants, dtype, registers=96)


@pytest.mark.parametrize("has_other", [False, True])
@pytest.mark.parametrize("dtype", ["*fp32", "*fp64"])
@pytest.mark.parametrize("channels", [1, 64])
def test_lookup_gradient(channels: int, has_other: bool, dtype: str) -> None:
    block_n, block_d = lookup_gradient._tile(channels)
    single = ONE if channels == 1 else {}
    constants = {"HAS_OTHER": has_other, "BLOCK_N": block_n, "BLOCK_D": block_d, **single}
    check(lookup_gradient._differences_kernel, constants, dtype, registers=64)
