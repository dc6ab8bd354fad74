"""No operation holds an N × K matrix."""

import subprocess
import sys

import pytest
import torch

from benchmarks.allocations import largest_allocation
from quantizers.kernels.common.dispatch import chosen_implementation
from quantizers.kernels.highest import reference as reference_highest
from quantizers.kernels.highest.operation import highest_score
from quantizers.kernels.k_nearest import reference as reference_k_nearest
from quantizers.kernels.k_nearest.operation import k_nearest_codes
from quantizers.kernels.nearest import blocked
from quantizers.kernels.nearest import reference as reference_nearest
from quantizers.kernels.nearest.operation import nearest_lookup
from quantizers.kernels.soft import compiled as compiled_soft
from quantizers.kernels.soft import reference as reference_soft
from quantizers.kernels.soft.operation import soft_codes
from quantizers.kernels.sums.operation import code_sums
from quantizers.kernels.transport import reference as transport
from quantizers.kernels.transport.operation import sinkhorn_potentials

pytestmark = pytest.mark.usefixtures("implementation")


@pytest.mark.parametrize("degenerate", [False, True], ids=["normal", "all codes equal"])
def test_no_matrix_of_n_by_k(monkeypatch: pytest.MonkeyPatch, degenerate: bool) -> None:
    n, k, d, budget = 512, 512, 4, 16384
    modules = (reference_nearest, reference_k_nearest, reference_highest, reference_soft, compiled_soft, transport)
    for module in modules:
        monkeypatch.setattr(module, "SCORE_BUDGET", budget)
    monkeypatch.setattr(blocked, "ROWS", 16)
    monkeypatch.setattr(blocked, "PAIR_BUDGET", budget)
    x = torch.randn(n, d, requires_grad=True)
    codebook = (torch.zeros if degenerate else torch.randn)(k, d, requires_grad=True)

    def everything() -> None:
        codes, indices, loss = nearest_lookup(x[None], codebook[None])
        k_nearest_codes(x[None], codebook[None], 5)
        highest_score(x, codebook, codebook[:, 0])
        value, _, divergence = soft_codes(x, codebook, codebook[:, 0], codebook, torch.ones(()), torch.tensor(1))
        (codes.sum() + loss.sum() + value.sum() + divergence.sum()).backward()
        code_sums(x[None], indices, k)
        sinkhorn_potentials(x, codebook, codebook[:, 0], indices[0] >= 0, 2)

    # Blocks of at most `budget` numbers of eight bytes; a matrix would have a byte an element at the least.
    largest = largest_allocation(everything)
    assert largest <= 8 * budget
    assert largest < n * k


def test_peak_memory_of_a_search() -> None:
    """At most 64 MiB and 8·(N + K)·D bytes beyond inputs and outputs, by the process's own high-water mark.

    A matrix of float32 would take 256 MiB.
    """
    program = """
import resource, torch
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.nearest.operation import nearest_code
n, k, d = 8192, 8192, 64
x, codebook = torch.randn(1, n, d), torch.randn(1, k, d)
with use_implementation(NAME):
    nearest_code(x[:, :64], codebook[:, :64])  # libraries, threads and caches
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    nearest_code(x, codebook)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 - 12 * n)
"""
    name = repr(chosen_implementation())
    done = subprocess.run(
        [sys.executable, "-c", program.replace("NAME", name)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) <= 64 * 2**20 + 8 * (8192 + 8192) * 64
