"""A table of items and their semantic IDs."""

import os

from typing_extensions import Self

from quantizers.core.arguments.checks import check_at_least
from quantizers.core.base import Quantizer
from quantizers.fitting.report import OnProgress
from quantizers.item_ids.adding import Added, check_new_items, new_items, next_number
from quantizers.item_ids.collisions import check_policy
from quantizers.item_ids.items import Items
from quantizers.item_ids.levels import Levels
from quantizers.item_ids.lookup import IDTable
from quantizers.item_ids.saving import Stored, read, write
from quantizers.vectors import open_vectors
from quantizers.vectors.opening import Data


class SemanticIDs(IDTable):
    """Items and their semantic IDs: tuples of codes of a fitted quantizer, coarse to fine.

    Items that are alike share the first codes. `semantic_ids` fits a quantizer and makes a table; `from_quantizer`
    makes one with a quantizer that is fitted already.

        >>> import torch, quantizers
        >>> from quantizers.item_ids import SemanticIDs
        >>> quantizer = quantizers.create("residual", dim=2, num_quantizers=2, codebook_size=4)
        >>> ids = SemanticIDs.from_quantizer(quantizer, torch.randn(3, 2), items=["tea", "coffee", "cup"])
        >>> len(ids), len(ids["tea"]), ids.collision_rate
        (3, 2, 0.0)

    Attributes:
        quantizer: the quantizer whose codes the IDs are. It must not learn any more.
        items: the items that have an ID, in the order of `codes`: strings or ints.
        codes: their IDs, int64 [N, levels].
        collisions: the policy for items with the same codes, see `semantic_ids`.
        skipped: items without an ID, because their embedding is not finite.
        collided: how many items had the codes of another item when they came, before the policy.

    Source: Rajput et al.: Recommender Systems with Generative Retrieval, 2023 (TIGER, arXiv 2305.05065).
    """

    def __init__(self, quantizer: Quantizer, *, collisions: str = "next_code") -> None:
        """Make an empty table, to be filled by `extend`.

        Raises: TypeError for a quantizer without codes for single vectors; ValueError for an unknown policy.
        """
        self._levels = Levels(quantizer)
        self.quantizer = quantizer
        self.collisions = check_policy(collisions)
        super().__init__(len(self._levels.sizes) + (self.collisions == "extra_level"))
        self.collided = 0

    @classmethod
    def from_quantizer(
        cls,
        quantizer: Quantizer,
        embeddings: Data,
        *,
        items: Items | None = None,
        collisions: str = "next_code",
        batch_size: int = 65536,
        progress: OnProgress | None = None,
    ) -> Self:
        """Give IDs to items by a fitted quantizer with one or several codebooks, such as "residual" or "opq".

        Args: see `semantic_ids`.

        Raises: as `semantic_ids`, and TypeError for a quantizer without codes for single vectors.
        """
        ids = cls(quantizer, collisions=collisions)
        ids.extend(embeddings, items, batch_size=batch_size, progress=progress)
        return ids

    def extend(
        self,
        embeddings: Data,
        items: Items | None = None,
        *,
        batch_size: int = 65536,
        progress: OnProgress | None = None,
    ) -> None:
        """Give IDs to new items by the same policy. Those of the items that are there do not change.

        If this raises, the table is as before. New items get what is free, so several calls give other IDs than a
        single one; in no case do two items share an ID, unless the policy is "keep".

        Args:
            embeddings: [n, dim], anything that `open_vectors` accepts.
            items: their names, one for each row. Default: numbers from the first one above all that are in use.
            batch_size: how many vectors are encoded at a time.
            progress: gets a `quantizers.fitting.Progress` after each block.

        Raises: ValueError for items that are not one for each row, appear twice, or have an ID already, for
            embeddings of another dim, and if there are more items than IDs.
        """
        vectors = open_vectors(embeddings)
        names = check_new_items(items, self.items, vectors)
        first = next_number([*self.items, *self.skipped])
        rows = check_at_least("batch_size", batch_size, 1)
        added = new_items(self._levels, self.collisions, self.codes, vectors, names, first, rows, progress)
        self._add(added)

    def _add(self, added: Added) -> None:
        self._append(added.items, added.codes, added.skipped)
        self.collided += added.collided

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of codes at each level. An extra level has as many as the largest collision has items."""
        if self.collisions != "extra_level":
            return self._levels.sizes
        return (*self._levels.sizes, int(self.codes[:, -1].max()) + 1 if len(self) else 1)

    @property
    def collision_rate_before(self) -> float:
        """The share of items that had the codes of another item when they came, before the policy."""
        return self.collided / len(self) if len(self) else 0.0

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Save the table and its quantizer to a folder, which `quantizers.load` reads the quantizer from, too.

        The IDs are in `ids.npy`, int64 [N, levels], and the items in `items.json`. A table in the folder is
        replaced, each file as a whole; other files stay.

        Raises: ImportError without safetensors; FileExistsError where `folder` is a file, or has files of these
            names that belong to something else; and the errors of `quantizers.save`.
        """
        write(self.quantizer, Stored(self.codes, self.items, self.skipped, self.collisions, self.collided), folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Load the table that `save` wrote to a folder, with its quantizer in evaluation mode.

        Raises: ImportError without safetensors; FileNotFoundError for a folder or file that does not exist;
            ValueError for a damaged file, and for files that do not belong together.
        """
        quantizer, stored = read(folder)
        ids = cls(quantizer, collisions=stored.collisions)
        ids._add(Added(stored.items, stored.codes, stored.skipped, stored.collided))
        return ids

    def __repr__(self) -> str:
        sizes = " · ".join(map(str, self.sizes))
        return f"SemanticIDs({len(self)} items, {sizes} codes, collisions={self.collisions!r})"
