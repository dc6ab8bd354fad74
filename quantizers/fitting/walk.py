"""The order in which the codebooks of a quantizer are fitted, each to what the ones before it leave."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from quantizers.clustering.seeding import Group
from quantizers.composite.composed import all_valid
from quantizers.composite.rotated import RotatedQuantizer
from quantizers.core.base import Quantizer
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.fitting.blocks import Columns, Reach, Sample, searched
from quantizers.fitting.errors import Errors
from quantizers.fitting.journal import Journal
from quantizers.fitting.places import Place, around, places_of, reaching
from quantizers.fitting.shares import Share, in_step
from quantizers.fitting.tables import Table, tables_in
from quantizers.fitting.task import Task

FitTable = Callable[[Task, dict[str, Any]], Tensor]
"""Returns the codes of a table; the second argument is the state of a checkpoint, empty at the beginning."""

ROTATING = 2**16  # vectors of the sample to which rotations are fitted


class Walk:
    """Fits the tables of a quantizer in the order of its indices.

    Args:
        root: the quantizer. share: this rank's vectors. sample: vectors of all ranks, the same on each.
        seed: of all random draws.
    """

    def __init__(
        self, root: RowQuantizer, share: Share, sample: Tensor, group: Group, journal: Journal, seed: int
    ) -> None:
        self.root, self.share, self.group, self.journal, self.seed = root, share, group, journal, seed
        self.places = places_of(root)
        self.sample, self.columns = Sample(sample), Columns()
        self.count = share.count_of_all()
        self.number = 0  # of the next table

    def fit_in_order(self, fit_table: FitTable, stored: dict[str, Any]) -> None:
        """Fit each table once, from the vectors that reach its first place.

        Args: fit_table: places the codes of one table. stored: the state of a checkpoint; empty at the beginning.
        """
        fitted: set[Quantizer] = set()
        for position, place in enumerate(self.places):
            self.journal.codebook = place.column
            if place.leaf not in fitted:
                self._fit_leaf(place, fit_table, stored)
                fitted.add(place.leaf)
            if position < len(self.places) - 1:
                self._assign(place)

    def _fit_leaf(self, place: Place, fit_table: FitTable, stored: dict[str, Any]) -> None:
        reach, resumed = Reach(self.root, place), stored.get("table", 0)
        tables = [] if place.leaf.frozen else tables_in(place.leaf)
        if self.number >= resumed and not (stored and self.number == resumed):
            with torch.random.fork_rng([reach.device] if reach.device.type == "cuda" else []):
                torch.manual_seed(self.seed)
                self._prepare(place, reach, has_tables=bool(tables))
        rotated = any(isinstance(node, RotatedQuantizer) for node, _ in around(self.root, place.path))
        for table in tables:
            if self.number >= resumed:
                task = replace(self._task(table, reach), prepared=rotated)
                codes = fit_table(task, stored if self.number == resumed else {})
                table.place(table.scaled(codes, reach(self.sample.rows, self.sample.indices)))
            self.number += 1
            self.journal.codebook += 1

    def _prepare(self, place: Place, reach: Reach, *, has_tables: bool) -> None:
        """Fit a rotation around a quantizer, or the quantizer itself if it has no table, to the sample."""
        for node, path in around(self.root, place.path):
            if isinstance(node, RotatedQuantizer) and not any(place.path[len(path) :]):
                vectors = reaching(self.root, path, self.sample.rows[:ROTATING], self.sample.indices[:ROTATING])
                node.initialize_rows(all_valid(self._own(vectors)), self.group)
        if not has_tables and not place.leaf.frozen and place.leaf.initializes_from_data:
            vectors = reach(self.sample.rows, self.sample.indices)
            place.leaf.initialize_rows(all_valid(self._own(vectors)), self.group)

    def _own(self, vectors: Tensor) -> Tensor:
        return vectors.tensor_split(self.share.ranks)[self.share.rank]

    def _task(self, table: Table, reach: Reach) -> Task:
        sample = searched(table, reach(self.sample.rows, self.sample.indices))
        blocks, batches = partial(self._blocks, table, reach), partial(self._batches, table, reach, self.number)
        return self._task_of(table, sample, blocks, batches)

    def _task_of(self, table: Table, sample: Tensor, blocks: Any, batches: Any) -> Task:
        return Task(
            table,
            self.number,
            sample,
            blocks,
            batches,
            self.share.total(),
            self.count,
            self.group,
            self.journal,
            self.seed,
        )

    def _blocks(self, table: Table, reach: Reach, _codes: Tensor) -> Iterator[Tensor]:
        for _, _, vectors in reach.blocks(self.share, self.columns):
            yield searched(table, vectors)

    def _batches(self, table: Table, reach: Reach, number: int, epoch: int) -> Iterator[Tensor]:
        batches = self.share.shuffled(self.seed + 1009 * number + epoch)
        for x in in_step(batches, self.group, self.root.dim, reach.device):
            x = x.to(reach.device)
            yield searched(table, reach(x, self._indices_before(x, reach.place)))

    def _indices_before(self, x: Tensor, place: Place) -> Tensor:
        """The indices of vectors in the codebooks before a place, computed anew: batches come in any order."""
        indices = torch.empty(len(x), 0, dtype=torch.int64, device=x.device)
        for earlier in self.places if place.follows else ():
            if earlier.column < place.column:
                indices = torch.cat([indices, _codes(earlier.leaf, Reach(self.root, earlier)(x, indices))], -1)
        return indices

    def _assign(self, place: Place) -> None:
        """Compute the indices of all vectors at a place, on which those of later places may depend."""
        reach, leaf, found, done = Reach(self.root, place), place.leaf, [], 0
        for x, _, vectors in reach.blocks(self.share, self.columns):
            found.append(_codes(leaf, vectors))
            done += len(x)
            self.journal.tell("encoding", done, self.share.total())
        self.columns.append(found)
        vectors = reach(self.sample.rows, self.sample.indices)
        self.sample.append(_codes(leaf, vectors))

    def fit_shared(self, fit_table: FitTable, stored: dict[str, Any]) -> None:
        """Fit tables with several places once more, each to the vectors that reach any of its places."""
        places = Counter(place.leaf for place in self.places)
        for leaf, count in places.items():
            if count == 1 or leaf.frozen or not leaf.has_table:
                continue
            self.columns = Columns()  # the indices are those of the codes before
            self.journal.codebook = next(place.column for place in self.places if place.leaf is leaf)
            if self.number >= stored.get("table", 0):
                table = Table(leaf)
                sample = torch.cat(list(self._everywhere(table, self.sample.rows[::count])))
                sample = sample[torch.randperm(len(sample), generator=torch.Generator().manual_seed(self.seed))]
                task = self._task_of(table, sample, partial(self._shared_blocks, table), None)
                table.place(fit_table(task, stored if self.number == stored.get("table") else {}))
            self.number += 1

    def _shared_blocks(self, table: Table, codes: Tensor) -> Iterator[Tensor]:
        table.place(codes)
        for x in self.share.blocks():
            yield torch.cat(list(self._everywhere(table, x.to(codes.device))))

    def _everywhere(self, table: Table, x: Tensor) -> Iterator[Tensor]:
        """The vectors that reach any place of a table, in blocks, with the codes that it has."""
        rows = all_valid(x)
        for leaf, z, chosen in self.root.learned_rows(rows, self.root.encode_rows(rows)):
            if leaf is table.quantizer:
                yield table.compared(z[chosen >= 0])

    def measure(self) -> Errors:
        """The error of the whole quantizer, and the use of its codebooks."""
        errors, done = Errors(self.root, self.sample.rows.mean(0)), 0
        reach, self.journal.codebook = Reach(self.root, self.places[-1]), self.places[-1].column
        complete = len(self.columns) == reach.place.column
        for x, before, vectors in reach.blocks(self.share, self.columns):
            if complete:
                found = _codes(reach.place.leaf, vectors)
                indices = torch.cat([before, found], -1)
            else:
                indices = _codes(self.root, x)
            errors.add(x, indices)
            done += len(x)
            self.journal.tell("encoding", done, self.share.total())
        return errors


def _codes(quantizer: Quantizer, vectors: Tensor) -> Tensor:
    """The indices of vectors, [N, num_codebooks]."""
    return quantizer.encode_rows(all_valid(vectors)).reshape(len(vectors), quantizer.num_codebooks)
