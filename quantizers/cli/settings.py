"""What a fit is asked to do."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from quantizers.cli.building import build
from quantizers.cli.exits import InputError
from quantizers.cli.files import make_writable
from quantizers.cli.items import read_items
from quantizers.cli.ranks import is_first
from quantizers.cli.writing import Names, import_pyarrow
from quantizers.core.base import Quantizer
from quantizers.item_ids.items import check_distinct
from quantizers.vectors import Vectors, open_vectors

CHECKPOINT = "checkpoint.pt"
FITTED = "fitted.pt"

Collisions = Literal["next_code", "auction", "extra_level", "keep"]
Method = Literal["nested", "lloyd", "minibatch"]


@dataclass(frozen=True)
class FitSettings:
    """The options of `fit`; `report.json` repeats them."""

    embeddings: str
    quantizer: str
    levels: int | None
    codebook_size: int
    option: tuple[str, ...]
    collisions: Collisions | None
    items: str | None
    column: str | None
    method: Method
    epochs: int
    batch_size: int
    seed: int
    format: Literal["npy", "parquet"]
    device: str
    out: Path

    @property
    def checkpoint(self) -> Path:
        """The file from which an interrupted fit resumes."""
        return self.out / CHECKPOINT

    @property
    def fitted(self) -> Path:
        """The file with the fitted codes, until the results are complete."""
        return self.out / FITTED


@dataclass(frozen=True)
class Prepared:
    """What a fit works with, checked before the work begins."""

    vectors: Vectors
    quantizer: Quantizer
    names: Names
    collisions: Collisions
    """What happens to items with equal codes."""

    @property
    def streams(self) -> bool:
        """Whether the codes go to their file block by block, because no item has to know of the others."""
        return self.collisions == "keep" and self.quantizer.num_codebooks == 1


def prepare(settings: FitSettings, *, fresh: bool) -> Prepared:
    """Open the embeddings, build the quantizer, and see that the results can be written.

    Args: fresh: whether to remove the checkpoint of an interrupted fit.

    Raises: an error with a sentence for anything that does not fit.
    """
    vectors = open_vectors(settings.embeddings, column=settings.column)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # projections, which stay as they are drawn, are equal on all ranks
        quantizer = build(
            settings.quantizer, vectors.dim, settings.levels, settings.codebook_size, settings.option
        ).eval()
    collisions = settings.collisions or ("keep" if quantizer.num_codebooks == 1 else "next_code")
    _check_count(vectors, quantizer, collisions)
    names = read_items(settings.items, settings.embeddings, vectors.count) if is_first() else None
    if names is not None and collisions != "keep":
        check_distinct(names)
    if settings.format == "parquet":
        import_pyarrow()
    if is_first():
        make_writable(settings.out)
        if fresh:
            settings.checkpoint.unlink(missing_ok=True)
            settings.fitted.unlink(missing_ok=True)
    return Prepared(vectors, quantizer, names, collisions)


def _check_count(vectors: Vectors, quantizer: Quantizer, collisions: Collisions) -> None:
    """Raises: InputError for fewer vectors than codes, and for more items than there are IDs."""
    count, largest = vectors.count, max(quantizer.codebook_sizes)
    if count is None:  # of a stream, which nobody knows before a pass
        return
    if count < largest:
        raise InputError(
            f"{vectors.name} has {count:,} vectors for codebooks of {largest:,} codes, expected at least as many; "
            "choose a smaller --codebook-size"
        )
    capacity = math.prod(quantizer.codebook_sizes)
    if collisions in ("next_code", "auction") and count > capacity:
        raise InputError(
            f"{vectors.name} has {count:,} vectors for {capacity:,} IDs, expected at most as many; choose more "
            "--levels, a larger --codebook-size, or --collisions extra_level"
        )
