"""The nearest code of every vector, by this library and by others.

A rival is prepared once with vectors x [N, D] and a codebook [K, D], and can then run any number of times. All
work that depends on the codebook is part of each run, since the codebook moves in every training step. A library
that keeps something of a codebook from one run to the next gets one that does move (motion.py).
"""

import importlib.util
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.motion import Moving, step_length
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.nearest.operation import nearest_code

Run = Callable[[], tuple[Tensor, ...]]
Work = Run  # possibly a WithSetup

OURS = "ours"
OURS_HIGH = "ours, high"
OURS_MEDIUM = "ours, medium"
PLAIN = "plain torch"
FAISS = "faiss"
SKLEARN = "scikit-learn"
CDIST = "cdist + argmin"
ADDMM = "addmm + argmin"
PEER = "vector-quantize-pytorch"
FLASH = "flash-kmeans"


@dataclass(frozen=True)
class WithSetup:
    """Work whose `setup` precedes each run and is not timed. Calling the object does both."""

    setup: Callable[[], object]
    run: Run

    def __call__(self) -> tuple[Tensor, ...]:
        self.setup()
        return self.run()


@dataclass(frozen=True)
class Rival:
    """One way to do the work.

    name      in tables and in the JSON
    prepare   (x, codebook) → a function without arguments that does the work once and returns its outputs, the
              indices [N] first. It may raise the library's errors
    against   the rival of this library whose time divides this one's
    package   import name of the required package, empty for torch alone
    devices   types of devices it runs on
    matrices  approximate number of N × K float32 matrices in memory at once; a run that cannot fit is skipped
    pairs     largest N · K on a GPU; a run that would take minutes is skipped
    """

    name: str
    prepare: Callable[[Tensor, Tensor], Work]
    against: str = OURS
    package: str = ""
    devices: tuple[str, ...] = ("cpu", "cuda")
    matrices: int = 0
    pairs: float = math.inf


def usable(rivals: Iterable[Rival], device: torch.device) -> tuple[list[Rival], list[str]]:
    """Return the rivals that can run on this device, and a sentence on each that lacks only its package."""
    fitting = [rival for rival in rivals if device.type in rival.devices]
    missing = [rival for rival in fitting if rival.package and importlib.util.find_spec(rival.package) is None]
    sentences = [f"{rival.name} is left out: the package {rival.package} is not installed." for rival in missing]
    return [rival for rival in fitting if rival not in missing], sentences


def prepare_ours(x: Tensor, codebook: Tensor, implementation: str = "auto", precision: str = "highest") -> Work:
    """Prepare this library's search in training. `precision` is torch's own setting for float32 products.

    On a CPU the codebook moves before each run but the first. On a GPU, where the library keeps nothing of a
    codebook, it stays.
    """
    on_cpu = x.device.type == "cpu"
    codes = codebook.clone() if on_cpu else codebook

    def run() -> tuple[Tensor, ...]:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            with use_implementation(implementation):
                indices, distance = nearest_code(x[None], codes[None])
        finally:
            torch.set_float32_matmul_precision(before)
        return indices[0], distance[0]

    return WithSetup(Moving(codes, step_length(x, codes)).step, run) if on_cpu else run


def implementation_that_runs(device: torch.device) -> str:
    """Return the name of the implementation that `nearest_code` chooses on this device."""
    with use_implementation() as executed:
        nearest_code(torch.zeros(1, 1, 1, device=device), torch.zeros(1, 1, 1, device=device))
    ((_, name),) = executed
    return name


def prepare_cdist(x: Tensor, codebook: Tensor) -> Work:
    return lambda: (torch.cdist(x, codebook).argmin(-1),)


def prepare_addmm(x: Tensor, codebook: Tensor) -> Work:
    """Prepare ½‖e‖² − x·e in one matrix, then its smallest column."""

    def run() -> tuple[Tensor, ...]:
        half_norms = 0.5 * codebook.square().sum(-1)
        return (torch.addmm(half_norms, x, codebook.T, alpha=-1).argmin(-1),)

    return run


def prepare_faiss(x: Tensor, codebook: Tensor) -> Work:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    vectors, codes = x.numpy(), codebook.numpy()

    def run() -> tuple[Tensor, ...]:
        index = faiss.IndexFlatL2(codes.shape[1])
        index.add(codes)
        distance, indices = index.search(vectors, 1)
        return torch.from_numpy(indices[:, 0]), torch.from_numpy(distance[:, 0])

    return run


def prepare_sklearn(x: Tensor, codebook: Tensor) -> Work:
    from sklearn.metrics import pairwise_distances_argmin

    vectors, codes = x.numpy(), codebook.numpy()
    return lambda: (torch.from_numpy(pairwise_distances_argmin(vectors, codes)),)


def prepare_peer(x: Tensor, codebook: Tensor) -> Work:
    """Prepare the peer's module in evaluation mode, which also looks up the codes."""
    from vector_quantize_pytorch import VectorQuantize

    module = VectorQuantize(dim=x.shape[1], codebook_size=codebook.shape[0]).to(x.device).eval()
    with torch.no_grad():
        module.codebook = codebook

    @torch.no_grad()
    def run() -> tuple[Tensor, ...]:
        quantized, indices, _ = module(x[None])
        return indices[0], quantized[0]

    return run


def prepare_flash(x: Tensor, codebook: Tensor) -> Work:
    """Prepare the assignment of flash-kmeans. Its earlier releases need the vectors' squared norms."""
    from flash_kmeans.assign_euclid_triton import euclid_assign_triton

    needs_norms = "x_sq" in inspect.signature(euclid_assign_triton).parameters

    def run() -> tuple[Tensor, ...]:
        norms: dict[str, Any] = {"x_sq": x[None].float().square().sum(-1)} if needs_norms else {}
        return (euclid_assign_triton(x[None], codebook[None], **norms)[0],)

    return run


SEARCHES = (
    Rival(OURS, prepare_ours),
    Rival(OURS_HIGH, lambda x, codebook: prepare_ours(x, codebook, precision="high"), devices=("cuda",)),
    Rival(OURS_MEDIUM, lambda x, codebook: prepare_ours(x, codebook, precision="medium"), devices=("cuda",)),
    # Its loop over groups of codes launches some kernels for each of them.
    Rival(PLAIN, lambda x, codebook: prepare_ours(x, codebook, "blocked"), pairs=2**30),
    Rival(FAISS, prepare_faiss, package="faiss", devices=("cpu",)),
    Rival(SKLEARN, prepare_sklearn, package="sklearn", devices=("cpu",)),
    Rival(ADDMM, prepare_addmm, matrices=1),
    Rival(CDIST, prepare_cdist, matrices=2),
    Rival(PEER, prepare_peer, package="vector_quantize_pytorch", matrices=5),
    Rival(FLASH, prepare_flash, package="flash_kmeans", devices=("cuda",)),
)
