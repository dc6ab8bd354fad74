"""Quantizers that hold quantizers."""

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.core.arguments.checks import Size
from quantizers.core.arguments.options import checked
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows
from quantizers.core.learned_codes import LearnedCodes
from quantizers.core.parallel import ProcessGroup
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.core.state.read_only import read_only
from quantizers.core.wrappers import named_modules
from quantizers.kernels.vectors import are_finite

Fit = Callable[[RowQuantizer, Tensor], None]  # tells a part the vectors [N, part.dim] that it meets
Walk = Callable[
    [Rows, Fit], None
]  # through the components in their order, `fit` before the codes of each are used


class ComposedQuantizer(Quantizer):
    """A vector has one index from each codebook of each part, on the last axis, in the order of the parts.

    The same object may stand several times among the parts: then those share it, codes, gradients and averages;
    averages move once a step, by the vectors of all places.

    Args:
        dim: channels of x. code_dim: channels that the parts share out; where it differs, x is projected.
        parts: quantizers of vectors [..., part.dim], each with its channels last.
        channel_dim: axis of x's channels.

    `codebook` is [num_codebooks, K, part.code_dim]; where the parts differ in size it is a ValueError, and
    `quantizers`, the distinct parts, have one each.

    Raises: ValueError for a part without codes or with its channels elsewhere; TypeError for one that is no
    Quantizer.
    """

    composed: ClassVar[bool] = True

    @checked
    def __init__(self, dim: Size, parts: Sequence[Quantizer], *, code_dim: int, channel_dim: int) -> None:
        components = [check_component(part) for part in parts]
        sizes = [component.codebook_size for component in components]
        super().__init__(dim, max(sizes), code_dim=code_dim, channel_dim=channel_dim)
        distinct = list(dict.fromkeys(components))
        self.quantizers = nn.ModuleList(distinct)
        self.order = tuple(distinct.index(component) for component in components)
        self.num_codebooks = sum(component.num_codebooks for component in components)
        self._sizes_differ = len(set(sizes)) > 1

    @property
    def components(self) -> list[RowQuantizer]:
        """The quantizers in their order, a shared one at each of its places."""
        return [self.quantizers[place] for place in self.order]  # type: ignore[misc]

    @property
    def codebook(self) -> Tensor:
        """All codes, [num_codebooks, K, part.code_dim]. Raises: ValueError where the parts differ in size."""
        books = [part.codebook if part.composed else part.codebook[None] for part in self.components]
        shapes = {tuple(book.shape[1:]) for book in books}
        if len(shapes) > 1:
            raise ValueError(
                f"the codebooks differ in shape, {sorted(shapes)}: read those of .quantizers, one by one"
            )
        return read_only(torch.cat(books))

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of codes in each codebook, in the order of the indices."""
        return tuple(size for part in self.components for size in part.codebook_sizes)

    @property
    def observes(self) -> bool:
        """Whether a part moves state in training."""
        return any(part.observes for part in self.quantizers)

    @property
    def initializes_from_data(self) -> bool:
        """Whether a component does."""
        return any(part.initializes_from_data for part in self.components)

    @property
    def value_is_code(self) -> bool:
        """Whether this is so for every component."""
        return all(part.value_is_code for part in self.components)

    @property
    def draws_in_training(self) -> bool:
        """Whether a component does."""
        return any(part.draws_in_training for part in self.components)

    @property
    def loss_depends_on_batch(self) -> bool:
        """Whether the loss of a component does."""
        return any(part.loss_depends_on_batch for part in self.components)

    @property
    def index_depends_on_batch(self) -> bool:
        """Whether an index of a component does."""
        return any(part.index_depends_on_batch for part in self.components)

    @property
    def same_indices_in_training(self) -> bool:
        """Whether this is so for every component."""
        return all(part.same_indices_in_training for part in self.components)

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {"parts": list(self.order), "dims": [part.dim for part in self.components]}

    def _columns(self, indices: Tensor) -> list[Tensor]:
        """Indices [N, ...] of the first parts, as many as there are columns for."""
        columns, start = [], 0
        for part in self.components:
            if start == indices.shape[1]:
                break
            columns.append(indices[:, start : start + part.num_codebooks] if part.composed else indices[:, start])
            start += part.num_codebooks
        return columns

    def _rows_still_valid(self, valid: Tensor, indices: Tensor) -> Tensor:
        return valid & (indices >= 0).any(-1)  # a part may meet what left float32 on the way to it

    def _check_indices(self, indices: Tensor) -> Tensor:
        indices = super()._check_indices(indices)
        self._check_component_indices(self._columns(indices.reshape(-1, indices.shape[-1])))
        return indices

    def _check_component_indices(self, indices: Sequence[Tensor]) -> None:
        """Where the parts differ in size, each checks the indices that are its own."""
        if self._sizes_differ:
            for part, own in zip(self.components, indices, strict=False):
                part._check_indices(own)

    @abc.abstractmethod
    def _component_inputs(self, projected: Rows, indices: Tensor) -> list[tuple[RowQuantizer, Tensor, Tensor]]:
        """Each component with the vectors [N, component.dim] that it got, and the indices that it gave them."""

    def learned_rows(self, rows: Rows, indices: Tensor) -> Iterator[tuple[LearnedCodes, Tensor, Tensor]]:
        """As for any quantizer: those of the parts, with the codes of now between one part and the next."""
        for part, vectors, column in self._component_inputs(self._project_in(rows), indices):
            yield from part.learned_rows(all_valid(vectors), column)

    @torch.no_grad()
    def observe_rows(self, rows: Rows, indices: Tensor) -> None:
        """Learn from a forward in training: from rows [N, dim] and the indices that it gave them."""
        self._observe_components(self._component_inputs(self._project_in(rows), indices))

    def _observe_components(self, seen: Sequence[tuple[RowQuantizer, Tensor, Tensor]]) -> None:
        """Each part learns once, from all vectors [N, part.dim] and indices of its places.

        One that saw nothing does so from an empty batch: other ranks may sum with it what theirs saw.
        """
        for part in dict.fromkeys(self.components):
            if part.observes:
                own = [(vectors, column) for of, vectors, column in seen if of is part]
                vectors, columns = zip(*(own or [_nothing_for(part, seen[0][1])]), strict=True)
                part.observe_rows(all_valid(torch.cat(vectors)), torch.cat(columns))

    def _initialize_in_order(self, projected: Rows, walk: Walk, process_group: ProcessGroup) -> None:
        """Each part after the vectors that those before it leave; one at several places a second time, after those
        of all its places, which only its first codes tell."""
        seen: dict[RowQuantizer, list[Tensor]] = {}
        for _ in range(1 if len(self.quantizers) == len(self.order) else 2):
            known, seen = seen, {}
            walk(projected, _fitting(known, seen, process_group))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, num_codebooks={self.num_codebooks}, codebook_size={self.codebook_size}"


def _nothing_for(part: RowQuantizer, like: Tensor) -> tuple[Tensor, Tensor]:
    """No vectors [0, part.dim], of the dtype and device of others, and their indices."""
    shape = (0, part.num_codebooks) if part.composed else (0,)
    return like.new_empty(0, part.dim), torch.empty(shape, dtype=torch.int64, device=like.device)


def _fitting(
    known: dict[RowQuantizer, list[Tensor]], seen: dict[RowQuantizer, list[Tensor]], process_group: ProcessGroup
) -> Fit:
    """Initializes a part where it is met first, after its `known` vectors if there are any; `seen` gets all."""

    def fit(part: RowQuantizer, vectors: Tensor) -> None:
        if part not in seen:
            rows = all_valid(torch.cat(known.get(part, [vectors])))
            part.initialize_rows(rows._replace(valid=are_finite(rows.vectors)), process_group)
        seen.setdefault(part, []).append(vectors)

    return fit


def outermost(model: nn.Module) -> dict[str, Quantizer]:
    """The quantizers in a model by name, without those inside another; of a model that is one, it, by ''.

    Names are those of the model without DistributedDataParallel, torch.compile or another wrapper around it.
    """
    quantizers = {name: part for name, part in named_modules(model) if isinstance(part, Quantizer)}
    inner = {part for outer in quantizers.values() for part in outer.modules() if part is not outer}
    return {name: part for name, part in quantizers.items() if part not in inner}


def all_valid(vectors: Tensor) -> Rows:
    """Vectors [N, D] as rows of which each counts."""
    valid = torch.ones(vectors.shape[:1], dtype=torch.bool, device=vectors.device)
    return Rows(vectors, valid, valid, vectors.shape[:1])


def joined(columns: Sequence[Tensor]) -> Tensor:
    """Indices [N] or [N, n] of several parts, side by side."""
    return torch.cat([column if column.dim() > 1 else column[:, None] for column in columns], -1)


def check_component(part: object) -> RowQuantizer:
    """`part`, if it can be held; else a sentence that says why not."""
    if not isinstance(part, Quantizer):
        raise TypeError(f"a part is {part!r}, expected a Quantizer")
    if part.channel_dim != -1:
        raise ValueError(f"a part has channel_dim={part.channel_dim}, expected −1: it gets rows of vectors")
    if not isinstance(part, RowQuantizer):
        raise ValueError(f"a part is {type(part).__name__}, which quantizes maps, not single vectors")
    if part.codebook_size < 1:
        raise ValueError(f"a part is {type(part).__name__}, which has no codes to give indices of")
    return part
