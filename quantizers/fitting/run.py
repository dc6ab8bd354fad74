"""Fitting the codebooks of a quantizer to vectors, without an autoencoder."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from quantizers.core.arguments.checks import Size, shown
from quantizers.core.arguments.options import checked
from quantizers.core.base import Quantizer
from quantizers.core.parallel import ProcessGroup, Ranks, total
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.fitting.growth import LARGEST_SHARE, grown
from quantizers.fitting.journal import Journal
from quantizers.fitting.lloyd import passes, settled
from quantizers.fitting.minibatch import e_means
from quantizers.fitting.places import device_of, on_wide_device, places_of
from quantizers.fitting.progress_bar import watched
from quantizers.fitting.relocation import SEEN, exchanging_passes
from quantizers.fitting.report import FitReport
from quantizers.fitting.shares import Share
from quantizers.fitting.starting import FEWEST, STARTS
from quantizers.fitting.task import Task
from quantizers.fitting.walk import Walk

Method = Literal["nested", "lloyd", "minibatch"]
Start = Literal["k-means++", "random", "codebook"]

METHODS: dict[str, Callable[..., Tensor]] = {
    "nested": exchanging_passes,
    "lloyd": passes,
    "minibatch": e_means,
}
SAMPLE = 256  # vectors per code in the sample
SAMPLE_BYTES = 2**28  # of the sample at most


@checked
@torch.no_grad()
def fit(
    quantizer: Any,
    data: Any,
    *,
    method: Method = "nested",
    epochs: Size = 8,
    batch_size: Size = 2**16,
    seeds: Start = "k-means++",
    seed: int = 0,
    process_group: ProcessGroup = "world",
    progress: Any = False,
    checkpoint: Any = None,
) -> FitReport:
    """Fit the codebooks of a quantizer to vectors by k-means: speech units, semantic IDs, product codes.

        >>> import torch, quantizers
        >>> quantizer = quantizers.create("residual", 16, 8, num_quantizers=3)
        >>> report = quantizers.fit(quantizer, torch.randn(1000, 16))
        >>> report.count, [codebook.used for codebook in report.codebooks], report.relative_error < 0.7
        (1000, [8, 8, 8], True)

    The codebooks are fitted one after the other, in the order of the indices. Those of a residual quantizer get
    what the ones before them leave, and a codebook that has several places gets the vectors of all of them. A
    rotation (`create("opq", ...)`) is fitted first, to a sample. Quantizers without a table of codes (SimVQ, IBQ)
    are initialized from a sample, see `initialize_from`; frozen codes stay. Projections (`code_dim`) stay as they
    are. Where directions are compared (distance="cosine"), this is spherical k-means.

    **Methods.** All begin with `seeds`:

    - "nested": Lloyd's iterations with steps of 1.8, first on random samples that grow (`fitting.growth`), then on
      all vectors. In between, codes of little use move beside codes with a large error (`fitting.relocation`). It
      reaches a smaller error than Lloyd's iterations, in fewer passes.
    - "lloyd": Lloyd's iterations on all vectors.
    - "minibatch": averages of random batches, and one exact pass (e-means), see `fitting.minibatch`. For data that
      few passes shall read.

    Codes that no vector chooses split the vectors of codes with a large error.

    **Large data.** Vectors are read block by block, several times. In memory are a block, a sample of at most 256
    vectors per code and 256 MiB, and the indices of all vectors (4 bytes per vector and codebook).

    On a device without float64 the quantizer is on the CPU for the time of the fit.

    **Several ranks** (torchrun) fit together, and end with the same codes, which are those of one process up to
    the order of summation. A file, or `Vectors`, is divided among them; otherwise `data` are each rank's own
    vectors. Every rank must make this call.

    **Resuming.** With `checkpoint`, every pass over the vectors ends with writing this file; the same call after
    an interruption goes on from there, to the same result. The file is removed at the end.

    Args:
        quantizer: any quantizer of single vectors that learns codes.
        data: vectors [N, dim]: a tensor, an array, a memory map, the path of a .npy, .safetensors, .parquet or
            Arrow file, or an iterable of batches [n, dim] that gives the same vectors in every pass; see
            `quantizers.vectors.open_vectors`. Vectors that are not finite do not count; the report names them.
        method: see above. epochs: the largest number of passes over all vectors for each codebook.
        batch_size: how many vectors of all ranks are read at once; with "minibatch" also the size of a batch.
        seeds: "k-means++" (the greedy variant, see `clustering.greedy_seeding`), "random" vectors, or "codebook"
            for the codes that the quantizer has.
        seed: of all random draws.
        process_group: the ranks, "world" for all.
        progress: True for a progress bar, which needs rich, or a function that gets a `Progress` after each block.
        checkpoint: the path of the file.

    Returns: the error and the use of the codebooks, over the vectors of all ranks.

    Raises: TypeError for a quantizer of maps, and for data of an unknown kind; ValueError for a quantizer without
        codes to fit, for fewer vectors than codes, for data that change between two passes, and for the checkpoint
        of another fit; OSError for files that cannot be read or written.
    """
    root, group = _check_quantizer(quantizer), Ranks(process_group).group()
    with on_wide_device(root):
        share = Share(data, root.dim, group, batch_size, device_of(root))
        options = {"method": method, "epochs": epochs, "batch_size": batch_size, "seeds": seeds, "seed": seed}
        settings = {"quantizer": repr(root), "vectors": share.vectors.count, "ranks": share.ranks, **options}
        with watched(progress, share.rank) as on_progress:
            journal = Journal(root, settings, _path(checkpoint), group, on_progress)
            stored = journal.resume()
            walk = Walk(root, share, _sample(root, share, journal, seed), group, journal, seed)
            walk.fit_in_order(partial(_fit_table, method=method, epochs=epochs, seeds=seeds), stored)
            walk.fit_shared(partial(_fit_shared_table, epochs=epochs, seeds=seeds), stored)
            count, inertia, variance, use = walk.measure().over(group)
            journal.remove()
        (skipped,) = total(group, torch.tensor([share.skipped], device=share.device))
    seconds = time.perf_counter() - journal.started
    rows = tuple(share.skipped_rows)
    return FitReport(count, int(skipped), rows, inertia, variance, use, tuple(journal.history), seconds)


def _fit_table(task: Task, stored: dict[str, Any], *, method: Method, epochs: int, seeds: Start) -> Tensor:
    """The codes of one table. Args: stored: the state of a checkpoint; empty at the beginning."""
    run = METHODS[method]
    if stored:
        state = {name: value.to(task.sample.device) for name, value in stored.items() if isinstance(value, Tensor)}
        return run(task, state.pop("codes"), epochs, stored["epoch"], **state)
    seeds = "codebook" if task.prepared else seeds
    codes = STARTS[seeds](task)
    if method == "nested" and seeds != "codebook":
        codes = grown(task, codes)
    return run(task, codes, epochs)


def _fit_shared_table(task: Task, stored: dict[str, Any], *, epochs: int, seeds: Start) -> Tensor:
    """The codes of a table with several places. Lloyd's steps, since the vectors depend on the codes."""
    if stored:
        return passes(task, stored["codes"].to(task.sample.device), epochs, stored["epoch"])
    return passes(task, settled(task, STARTS[seeds](task), len(task.sample)), epochs)


def _check_quantizer(quantizer: object) -> RowQuantizer:
    if not isinstance(quantizer, Quantizer):
        raise TypeError(f"quantizer is {shown(quantizer)}, expected a quantizer, such as create('vq', ...)")
    name = type(quantizer).__name__
    if not isinstance(quantizer, RowQuantizer) or not quantizer.per_vector:
        raise TypeError(f"quantizer is {name}, which quantizes maps; expected a quantizer of single vectors")
    if not quantizer.initializes_from_data:
        raise ValueError(f"quantizer is {name}, which has no codes to fit; it encodes vectors as it is")
    if quantizer.frozen or all(place.leaf.frozen for place in places_of(quantizer)):
        raise ValueError(f"quantizer is {name}, whose codes are frozen, expected codes that learn; see unfreeze()")
    return quantizer


def _sample(root: RowQuantizer, share: Share, journal: Journal, seed: int) -> Tensor:
    """Vectors of all ranks in random order, on the quantizer's device."""
    journal.tell("sampling", 0, None)
    size, count = max(root.codebook_sizes), share.count_of_all()
    useful = SAMPLE * size if count is None else min(SAMPLE * size, count // LARGEST_SHARE)
    fits = SAMPLE_BYTES // (4 * root.dim)
    sample = share.sample(max(size, min(fits, max(SEEN * size, FEWEST, useful))), seed)
    if len(sample) < size:
        raise ValueError(
            f"{share.vectors.name} has {len(sample)} finite vectors, expected at least codebook_size={size}"
        )
    return sample.to(share.device)


def _path(checkpoint: str | os.PathLike[str] | None) -> Path | None:
    return None if checkpoint is None else Path(checkpoint)
