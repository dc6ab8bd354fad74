"""No quantizer makes a tensor of N × K, in any of its uses: by torch's own record, and by the process's memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.allocations import largest_allocation
from benchmarks.kernels.memory import resident_peak
from quantizers import Quantizer
from quantizers.core.registry import _BUILDERS, parameters
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.highest import reference as reference_highest
from quantizers.kernels.implicit import reference as reference_implicit
from quantizers.kernels.nearest import reference as reference_nearest
from quantizers.kernels.soft import reference as reference_soft
from quantizers.training.regularizers import Entropy
from tests.cases import NAMES, Case, batch
from tests.implementations import under

N, K = 4096, 16384
# The reference's Gumbel noise takes seconds at that size; at this one, a smaller budget takes its place.
FEW, SMALL = 1024, 2048
LEVELS = {K: (8, 8, 16, 16), SMALL: (8, 8, 8, 4)}
# QINCo computes N × K codes and all of a network for each, one of them at a time: the smallest one.
QINCO = Case("qinco", {"num_quantizers": 2, "hidden_dim": 4, "blocks": 1})
CASES = [
    *(Case(name) for name in NAMES if name != QINCO.name),
    Case("vq", {"distance": "cosine"}),
    Case("vq", {"regularizers": [Entropy(0.1)]}),
    Case("ema_vq", {"gradient": "rotation"}),
    Case("fsq", {"gradient": "rotation"}),
    Case("gumbel", {"hard": True}),
    Case("gumbel", {"logits": "linear"}),
]
ROOT = Path(__file__).parents[2]
CLEAR_REFS = Path("/proc/self/clear_refs")


def build(case: Case, size: int) -> Quantizer:
    levels = {"levels": LEVELS[size], "codebook_size": None}
    options: dict[str, Any] = levels if case.takes_levels else {"codebook_size": size}
    if "iterations" in parameters(case.name):
        options["iterations"] = 1  # as large as many, and quicker
    quantizer = case.build(**options)
    assert quantizer.codebook_size >= (size / 4 if case.has_codes else 0)  # a lattice has the size nearest to it
    return quantizer


def use(quantizer: Quantizer, rows: int) -> None:
    """In every way that there is: forward and backward in both modes, without gradients, encode and decode."""
    for training in (True, False):
        x = batch(rows).requires_grad_()
        out = quantizer.train(training)(x)
        (out.quantized.square().sum() + out.loss).backward()
    with torch.no_grad():
        quantizer(x)
    indices = quantizer.encode(x)
    if quantizer.codebook_size:
        quantizer.decode(indices)


# The counter itself


def test_the_counter_sees_a_matrix() -> None:
    x, codebook = batch(FEW), batch(SMALL)
    assert largest_allocation(lambda: torch.cdist(x, codebook)) >= FEW * SMALL * x.itemsize
    assert largest_allocation(lambda: torch.zeros(FEW, SMALL, dtype=torch.bool)) == FEW * SMALL
    assert largest_allocation(lambda: x + 1) < FEW * SMALL


@pytest.mark.parametrize("name", ["vq", "gumbel"])
def test_the_counter_sees_into_the_operations(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The reference without its budget makes the matrix, inside a registered operation."""
    for module in (reference_nearest, reference_soft, reference_highest):
        monkeypatch.setattr(module, "SCORE_BUDGET", 2**40)
    with use_implementation("reference"):
        quantizer = build(Case(name), SMALL)
        assert largest_allocation(lambda: use(quantizer, FEW)) >= FEW * SMALL


def test_the_counter_sees_a_backward() -> None:
    x = batch(FEW).requires_grad_()
    total = x.sum()  # its own gradient is an expanded scalar
    x.register_hook(lambda gradient: (torch.cdist(gradient, batch(SMALL)), gradient)[1])
    assert largest_allocation(total.backward) >= FEW * SMALL * x.itemsize


# What torch allocates


# Options change nothing in how an operation goes by blocks, and of Gumbel, IBQ, OptVQ "blocked" is the reference.
COUNTED = [
    pytest.param(case, implementation, id=f"{case}-{implementation}")
    for implementation in ("compiled", "blocked", "reference")
    for case in CASES
    if (implementation == "compiled" and case.name != "gumbel" and case.takes_sizes)
    or (case == Case("gumbel") and implementation == "reference")
    or (case == Case("vq") and implementation != "compiled")
]


@pytest.mark.parametrize(("case", "implementation"), COUNTED)
def test_no_tensor_of_n_by_k(monkeypatch: pytest.MonkeyPatch, case: Case, implementation: str) -> None:
    """Not even of one byte an element."""
    rows, size = N, K
    if case == Case("gumbel") and implementation == "reference":
        rows, size = FEW, SMALL
        for module in (reference_soft, reference_nearest, reference_highest):
            monkeypatch.setattr(module, "SCORE_BUDGET", FEW * SMALL // 10)  # of eight bytes each
    with under(implementation):
        quantizer = build(case, size)
        codes = min(size, quantizer.codebook_size) or size
        assert largest_allocation(lambda: use(quantizer, rows)) < rows * codes


def test_no_tensor_of_n_by_k_in_a_search_of_implicit_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has one implementation, and the reference's budget at the reference's size."""
    monkeypatch.setattr(reference_implicit, "BUDGET", FEW * SMALL // 10)
    quantizer = build(QINCO, SMALL)
    assert largest_allocation(lambda: use(quantizer, FEW)) < FEW * SMALL
    monkeypatch.setattr(reference_implicit, "BUDGET", 2**40)
    assert largest_allocation(lambda: quantizer.encode(batch(FEW))) >= FEW * SMALL


# What the process takes: also what an implementation allocates behind torch


def growths() -> dict[str, int]:
    """By how much each quantizer's use raises the process's high-water mark, and what a real matrix does to it."""
    works: dict[str, Callable[[int, int], object]] = {"matrix": lambda n, k: torch.cdist(batch(n), batch(k))}
    for case in CASES:
        works[str(case)] = lambda n, k, case=case: use(build(case, k), n)  # type: ignore[misc]
    for work in works.values():  # libraries, threads and caches
        work(64, SMALL)
    return {name: _growth(lambda work=work: work(N, K)) for name, work in works.items()}  # type: ignore[misc]


def _growth(work: Callable[[], object]) -> int:
    growth, _ = resident_peak(lambda: (work(), ())[1])
    return growth


@pytest.mark.long("an end-to-end run")
@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="no /proc/self/clear_refs: no high-water mark to reset")
def test_no_quantizer_takes_the_memory_of_a_matrix() -> None:
    """Less than one byte for each of N × K, by the fastest implementation, in a process that does nothing else."""
    builders = [getattr(builder, "func", builder) for builder in _BUILDERS.values()]
    modules = sorted({builder.__module__ for builder in builders})  # those that register the methods
    program = f"import json, {', '.join(modules)}; from tests.contract.test_no_matrix import growths; "
    program += "print(json.dumps(growths()))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    grown = json.loads(done.stdout.splitlines()[-1])
    assert grown.pop("matrix") >= 3 * N * K  # four bytes an element, less what was free before
    assert grown.keys() == {str(case) for case in CASES}
    assert {name: growth for name, growth in grown.items() if growth >= N * K} == {}
