"""What the stage "speed" times at each shape: searches of this library, and what they are compared with.

To time another search, add it to SEARCHES; another training step, to PAIRS of benchmarks/kernels/steps.py.

Those of other libraries are timed where their packages can be imported. All of these are pure Python, so that the
unpacked wheels can be carried in a folder on PYTHONPATH to a machine without a network: flash_kmeans and tqdm for
the searches; vector_quantize_pytorch, einops, einx, frozendict, loguru and torch_einops_utils for the steps. All
else that they import comes with torch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu.flash import FLASH_GRAPHS, FLASHES
from benchmarks.gpu.graphs import as_graph
from benchmarks.kernels import gemm
from benchmarks.kernels.rivals import (
    ADDMM,
    CDIST,
    OURS,
    OURS_HIGH,
    OURS_MEDIUM,
    Rival,
    Work,
    prepare_addmm,
    prepare_cdist,
    prepare_ours,
)
from benchmarks.kernels.steps import PAIRS


@dataclass(frozen=True)
class Search:
    """A search of this library, and the kind of product, as in floors.py, whose floor it is compared with."""

    rival: Rival
    floor: str

    @property
    def graph(self) -> Rival:
        return as_graph(self.rival)


def search_in(precision: str) -> Callable[[Tensor, Tensor], Work]:
    """Return a function that prepares the search by Triton under torch's setting for float32 products."""
    return lambda x, codebook: prepare_ours(x, codebook, "triton", precision)


SEARCHES = (
    Search(Rival(OURS, search_in("highest")), "tf32x3"),
    Search(Rival(OURS_HIGH, search_in("high")), "tf32"),
    Search(Rival(OURS_MEDIUM, search_in("medium")), "bf16"),
)


def compiled(prepare: Callable[[Tensor, Tensor], Work]) -> Callable[[Tensor, Tensor], Work]:
    """Return a function that prepares the work compiled for its shape alone, as an ambitious user would."""
    return lambda x, codebook: torch.compile(prepare(x, codebook), dynamic=False)


def product_in(precision: str) -> Callable[[Tensor, Tensor], Work]:
    """Return a function that prepares the bare product in float32, under torch's setting for such products."""

    def prepare(x: Tensor, codebook: Tensor) -> Work:
        multiply = gemm.prepare_mm(x, codebook)

        def run() -> tuple[Tensor, ...]:
            torch.set_float32_matmul_precision(precision)
            try:
                return multiply()
            finally:
                torch.set_float32_matmul_precision("highest")

        return run

    return prepare


def prepare_copy(x: Tensor, codebook: Tensor) -> Work:
    """Prepare a copy of vectors and codes: the bytes that a search reads at least once."""
    return lambda: (x.clone(), codebook.clone())


TORCH = (
    Rival(CDIST, prepare_cdist, matrices=2),
    Rival(ADDMM, prepare_addmm, matrices=1),
    Rival(f"{CDIST}, compiled", compiled(prepare_cdist), devices=("cuda",), matrices=2),
    Rival(f"{ADDMM}, compiled", compiled(prepare_addmm), devices=("cuda",), matrices=2),
)
PRODUCTS = (
    Rival("matmul, float32", product_in("highest")),
    Rival("matmul, tf32", product_in("high")),
    Rival("matmul, bf16", lambda x, codebook: gemm.prepare_mm(x.bfloat16(), codebook.bfloat16())),
)
LIMITS = (*PRODUCTS, Rival("copy", prepare_copy))
OTHERS = (*TORCH, *LIMITS)
RIVALS = (*OTHERS, *FLASHES, *FLASH_GRAPHS)
STEPS = tuple(pair.ours for pair in PAIRS)
PEERS = tuple(pair.peer for pair in PAIRS)
PEER_GRAPHS = tuple(map(as_graph, PEERS))
SEARCHED = (*(search.rival for search in SEARCHES), *(search.graph for search in SEARCHES), *RIVALS)
STEPPED = (*STEPS, *map(as_graph, STEPS))
