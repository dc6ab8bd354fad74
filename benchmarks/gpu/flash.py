"""flash-kmeans beside the searches of this library, where its package can be imported: no dependency of ours."""

from torch import Tensor

from benchmarks.gpu.graphs import as_graph
from benchmarks.kernels.exactness import right_rows
from benchmarks.kernels.rivals import FLASH, OURS_HIGH, OURS_MEDIUM, Rival, prepare_flash, usable
from benchmarks.kernels.timing import prepare_all

FLASH_BF16 = f"{FLASH}, bf16"
FLASHES = (
    Rival(FLASH, prepare_flash, package="flash_kmeans", devices=("cuda",)),
    Rival(
        FLASH_BF16,
        lambda x, codebook: prepare_flash(x.bfloat16(), codebook.bfloat16()),
        package="flash_kmeans",
        devices=("cuda",),
    ),
)
FLASH_GRAPHS = tuple(map(as_graph, FLASHES))
COUNTERPARTS = {OURS_HIGH: FLASH, OURS_MEDIUM: FLASH_BF16}  # by searches whose products have the same precision


def wrong_by_flash(x: Tensor, codebook: Tensor, judged: slice) -> tuple[dict[str, float], dict[str, str]]:
    """Return the share of wrong indices of flash-kmeans in float32 among the judged rows, and the reason if it
    failed, by its name; nothing if it cannot be run here."""
    rivals, _ = usable(FLASHES[:1], x.device)
    works, failures = prepare_all(rivals, x, codebook)
    shares = {}
    for name, work in works.items():
        right = right_rows(work()[0][judged], x[judged], codebook)
        shares[name] = float((~right).float().mean())
    return shares, failures
