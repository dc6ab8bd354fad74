"""Semantic IDs from embeddings, in one call."""

from collections.abc import Sequence
from typing import Any

import torch

from quantizers.core.arguments.checks import check_at_least, elements
from quantizers.core.parallel import Ranks, rank_in
from quantizers.core.registry import create
from quantizers.fitting import fit
from quantizers.fitting.progress_bar import watched
from quantizers.fitting.report import OnProgress
from quantizers.item_ids.adding import check_new_items
from quantizers.item_ids.assignment import check_capacity
from quantizers.item_ids.collisions import NEED_IDS, check_policy
from quantizers.item_ids.items import Items
from quantizers.item_ids.table import SemanticIDs
from quantizers.vectors import open_vectors
from quantizers.vectors.opening import Data


def semantic_ids(
    embeddings: Data,
    *,
    levels: int = 3,
    codebook_size: int | Sequence[int] = 256,
    items: Items | None = None,
    collisions: str = "next_code",
    seed: int = 0,
    batch_size: int = 65536,
    progress: bool | OnProgress = False,
    **fit_options: Any,
) -> SemanticIDs:
    """Fit a residual quantizer to the embeddings of items, and give each item an ID of `levels` codes.

    The first codebook is fitted to the embeddings by k-means, the second one to what the first leaves, and so on;
    so items that are alike share the first codes, and a generative model can produce an ID code by code (TIGER,
    Rajput et al. 2023, arXiv 2305.05065, whose RQ-VAE is replaced here by k-means on fixed embeddings).

        >>> import torch, quantizers
        >>> ids = quantizers.semantic_ids(torch.randn(500, 16), levels=3, codebook_size=16)
        >>> ids.codes.shape, ids.collision_rate
        (torch.Size([500, 3]), 0.0)

    Use `SemanticIDs.from_quantizer` for a quantizer that is fitted already, of any kind.

    Several items may have the same nearest codes. `collisions` says what becomes of them:

    - "next_code": the nearest item keeps the codes; the others take the next nearest free code at the last level,
      or, where all codes under their prefix are taken, at the level before, and so on. No two items share an ID.
    - "auction": as "next_code", but the items of a prefix share out the last codes so that the total squared
      distance is the smallest.
    - "extra_level": one more level counts 0, 1, 2, … among the items with the same codes.
    - "keep": they share an ID.

    Args:
        embeddings: [N, dim], anything that `open_vectors` accepts; it may be larger than memory, and is read once
            for the IDs, beyond what fitting reads.
        levels: the number of codes of an ID, at least 1.
        codebook_size: the number of codes at each level, or one number for each level.
        items: what the items are called, distinct strings or integers, one for each row. Default: 0 to N − 1.
        collisions: the name of a policy.
        seed: of the random numbers of fitting.
        batch_size: how many vectors are encoded at a time.
        progress: True for a progress bar, which needs rich, or a function that gets a `Progress` after each block.
        fit_options: further options of `quantizers.fit`.

    Items whose embeddings are not finite get no ID; `SemanticIDs.skipped` lists them.

    Raises: ValueError for items that do not fit, an unknown policy, sizes below 1, fewer items than codes at a
        level, and more items than IDs where these are distinct; and as `open_vectors` and `quantizers.fit`.
    """
    levels = check_at_least("levels", levels, 1)
    sizes = elements(codebook_size)
    if sizes is not None and len(sizes) != levels:
        raise ValueError(
            f"codebook_size has {len(sizes)} numbers, expected a single one, or {levels}, one per level"
        )
    vectors = open_vectors(embeddings)
    check_policy(collisions)
    names = check_new_items(items, (), vectors)
    with torch.random.fork_rng(devices=[]):  # fitting replaces the codes that are drawn here
        quantizer = create(
            "residual", vectors.dim, codebook_size=codebook_size, num_quantizers=levels, quantizer="vq"
        )
    ids = SemanticIDs(quantizer.eval(), collisions=collisions)
    if collisions in NEED_IDS and vectors.count is not None:
        check_capacity(ids.sizes, vectors.count)  # before the time that fitting takes
    with watched(progress, rank_in(Ranks("world").group())) as on_progress:
        fit(quantizer, vectors, seed=seed, progress=on_progress, batch_size=batch_size, **fit_options)
        ids.extend(vectors, names, batch_size=batch_size, progress=on_progress)
    return ids
