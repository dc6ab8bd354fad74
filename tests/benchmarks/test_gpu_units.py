"""What the small products of benchmarks/gpu/units.py say of units whose sums are known."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.gpu.units import (
    ALL,
    DTYPES,
    FLOORED,
    ROUNDED,
    ROWS,
    SMALL,
    TRUNCATED,
    WIDTH,
    Dot,
    _dot_kernel,
    derive,
)
from benchmarks.machine import ROOT
from tests.triton.aot import compile_for
from tests.triton.interpreter import compiles_kernels

Cut = Callable[[Tensor], Tensor]
CUTS: dict[str, Cut] = {TRUNCATED: torch.trunc, ROUNDED: torch.round, FLOORED: torch.floor}


def cut_off(values: Tensor, largest: Tensor, bits: int, cut: Cut) -> Tensor:
    """Cut the values off at `bits` bits below the first of the largest."""
    bit = 2.0 ** (largest.clamp(min=2.0**-100).log2().floor() - bits)
    return cut(values / bit) * bit


def unit(step: int, bits: int, cut: str, end: str, aligned: bool = True, alone: bool = True) -> Dot:
    """A unit that cuts each step's terms off at `bits` bits below 2^−23 of the largest, and their sum at 2^−23.

    If not `aligned`, it adds the products first, and then the accumulator. If not `alone`, it adds neighbours
    before it cuts anything off.
    """

    def dot(x: Tensor, codes: Tensor, sums: Tensor) -> Tensor:
        for start in range(0, x.shape[1], step):
            terms = x[:, None, start : start + step] * codes[None, :, start : start + step]
            largest = terms.abs().amax(-1)
            if not alone:
                terms = terms.unflatten(-1, (-1, 2)).sum(-1)
            if aligned:
                terms = torch.cat([sums[..., None], terms], -1)
                largest = torch.maximum(largest, sums.abs())
            found = cut_off(terms, largest[..., None], 23 + bits, CUTS[cut]).sum(-1)
            found = found if aligned else found + sums
            sums = cut_off(found, found.abs(), 23, CUTS[end])
        return sums

    return dot


def exact(x: Tensor, codes: Tensor, sums: Tensor) -> Tensor:
    """The sum rounded once."""
    return (x @ codes.T + sums).float().double()


@pytest.mark.parametrize("step", [4, 8, 16, 32])
@pytest.mark.parametrize("bits", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("cut", [TRUNCATED, ROUNDED, FLOORED])
@pytest.mark.parametrize("end", [TRUNCATED, ROUNDED])
def test_a_unit_is_recognized(step: int, bits: int, cut: str, end: str) -> None:
    found = derive(unit(step, bits, cut, end))
    assert found["kept"] == {"none": bits, "large": bits, "small": bits}
    assert found["alike"] is True
    assert found["cut"] == cut
    assert found["alone"] is True
    assert found["step"] == (step if bits else None)
    assert found["end"] == (end if bits else None)


def test_an_accumulator_that_is_added_later_shows() -> None:
    found = derive(unit(8, 1, TRUNCATED, TRUNCATED, aligned=False))
    assert found["kept"] == {"none": 1, "large": 2, "small": ALL}
    assert found["alike"] is False


def test_products_that_are_added_first_show() -> None:
    assert derive(unit(8, 1, TRUNCATED, TRUNCATED, alone=False))["alone"] is False


def test_an_exact_sum_keeps_all_bits() -> None:
    found = derive(exact)
    assert found["kept"] == {"none": ALL, "large": ALL, "small": ALL}
    assert (found["cut"], found["alone"], found["step"], found["end"]) == (None, None, WIDTH, ROUNDED)
    remains = [2.0 ** (2 - b) for b in range(SMALL)]
    assert found["left"]["one, times -1.5"] == [-1.5 * value for value in remains]
    assert found["left"]["many"] == [14 * value for value in remains]
    assert found["left"]["many of alternating sign"] == [0] * SMALL


def test_a_unit_that_keeps_nothing_is_no_error() -> None:
    found = derive(lambda x, codes, sums: torch.zeros_like(sums))
    assert found["kept"] == {"none": None, "large": None, "small": None}
    assert (found["cut"], found["alone"], found["step"], found["end"]) == (None, None, None, None)
    assert derive(lambda x, codes, sums: torch.full_like(sums, torch.nan))["kept"]["none"] is None


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_the_operands_are_exact(dtype: torch.dtype) -> None:
    """In each dtype, and in tf32's eleven bits."""

    def checked(x: Tensor, codes: Tensor, sums: Tensor) -> Tensor:
        for tensor in (x, codes):
            assert torch.equal(tensor.to(dtype).double(), tensor)
            assert torch.equal(tensor.bfloat16().double(), tensor)
            assert (tensor[tensor != 0].abs() >= torch.finfo(dtype).tiny).all()
        assert torch.equal(sums.float().double(), sums)
        return exact(x, codes, sums)

    derive(checked)


@compiles_kernels
@pytest.mark.parametrize("operands", ["*fp16", "*bf16", "*fp32"])
def test_the_kernel_compiles_to_the_instructions_of_the_search(operands: str) -> None:
    types = {"x_ptr": operands, "codes_ptr": operands, "sums_ptr": "*fp32", "out_ptr": "*fp32"}
    kernel = compile_for(_dot_kernel, types, {"ROWS": ROWS, "SMALL": SMALL, "WIDTH": 16})
    assert "wgmma.mma_async" in kernel.asm["ptx"]


def test_the_kernel_multiplies_what_it_is_given() -> None:
    """In the interpreter, whose sums of float64 are exact."""
    code = (
        "import torch\nfrom pathlib import Path\n"
        "from benchmarks.gpu.stages import Place\nfrom benchmarks.gpu.units import unit_of, ROWS, WIDTH, SMALL\n"
        "place = Place(torch.device('cpu'), Path())\n"
        "x, codes, sums = (torch.randn(size).double() for size in ((ROWS, 16), (SMALL, 16), (ROWS, SMALL)))\n"
        "for kind in ('fp16', 'bf16', 'tf32'):\n"
        "    expected = (x @ codes.T + sums).float().double()\n"
        "    assert (unit_of(kind, place)(x, codes, sums) - expected).abs().max() < 1e-6\n"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(ROOT))}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
