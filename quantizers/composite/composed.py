"""Quantizers that contain other quantizers."""

import abc
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

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
from quantizers.kernels.common.vectors import are_finite

Initialize = Callable[[RowQuantizer, Tensor], None]
"""Initializes a component from the vectors [N, component.dim] that reach it."""

Walk = Callable[[Rows, Initialize], None]
"""Goes through the components in their order, and calls `Initialize` before the codes of each are used."""


class ComposedQuantizer(Quantizer):
    """A quantizer whose vectors have one index from each codebook of each component.

    The indices are on the last axis, in the order of the components. The same object may appear at several
    positions among the components: its codes, gradients and averages are then shared, and its averages move once
    per step, by the vectors of all its positions.

    `codebook` is [num_codebooks, K, component.code_dim]. If the components differ in size, it raises ValueError;
    then `quantizers`, the distinct components, have a codebook each.

    Args:
        dim: channels of x.
        components: quantizers of vectors [..., component.dim], each with its channels last.
        code_dim: channels that the components share; where it differs from `dim`, x is projected.
        channel_dim: axis of x's channels.

    Raises: ValueError for a component without codes or with its channels on another axis; TypeError for one that
        is not a Quantizer.
    """

    composed = True

    @checked
    def __init__(self, dim: Size, components: Sequence[Quantizer], *, code_dim: int, channel_dim: int) -> None:
        accepted = [check_component(component) for component in components]
        sizes = [component.codebook_size for component in accepted]
        super().__init__(dim, max(sizes), code_dim=code_dim, channel_dim=channel_dim)
        distinct = list(dict.fromkeys(accepted))
        self.quantizers = nn.ModuleList(distinct)
        self.order = tuple(distinct.index(component) for component in accepted)
        self.num_codebooks = sum(component.num_codebooks for component in accepted)
        self._sizes_differ = len(set(sizes)) > 1

    @property
    def components(self) -> list[RowQuantizer]:
        """The quantizers in their order; a shared one appears at each of its positions."""
        return [self.quantizers[position] for position in self.order]  # type: ignore[misc]

    @property
    def codebook(self) -> Tensor:
        """All codes, [num_codebooks, K, component.code_dim].

        Raises: ValueError if the components differ in size.
        """
        books = [item.codebook if item.composed else item.codebook[None] for item in self.components]
        shapes = {tuple(book.shape[1:]) for book in books}
        if len(shapes) > 1:
            raise ValueError(
                f"the codebooks differ in shape, {sorted(shapes)}: read the codebook of each of .quantizers"
            )
        return read_only(torch.cat(books))

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of codes in each codebook, in the order of the indices."""
        return tuple(size for component in self.components for size in component.codebook_sizes)

    @property
    def observes(self) -> bool:
        """Whether a forward in training changes the state of any component other than through gradients."""
        return any(component.observes for component in self.quantizers)

    @property
    def initializes_from_data(self) -> bool:
        """Whether a component does."""
        return any(component.initializes_from_data for component in self.components)

    @property
    def value_is_code(self) -> bool:
        """Whether training returns the code of each index in every component."""
        return all(component.value_is_code for component in self.components)

    @property
    def draws_in_training(self) -> bool:
        """Whether a forward in training draws random numbers in any component."""
        return any(component.draws_in_training for component in self.components)

    @property
    def loss_depends_on_batch(self) -> bool:
        """Whether the loss of any component is a statistic of the batch."""
        return any(component.loss_depends_on_batch for component in self.components)

    @property
    def index_depends_on_batch(self) -> bool:
        """Whether an index of any component depends on the other vectors of the batch in training."""
        return any(component.index_depends_on_batch for component in self.components)

    @property
    def same_indices_in_training(self) -> bool:
        """Whether every component gives the same indices in training as `encode` does."""
        return all(component.same_indices_in_training for component in self.components)

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {"order": list(self.order), "dims": [component.dim for component in self.components]}

    def _columns(self, indices: Tensor) -> list[Tensor]:
        """Split indices [N, ...] by component, for as many of the first components as there are columns."""
        columns, start = [], 0
        for component in self.components:
            if start == indices.shape[1]:
                break
            stop = start + component.num_codebooks
            columns.append(indices[:, start:stop] if component.composed else indices[:, start])
            start = stop
        return columns

    def _rows_still_valid(self, valid: Tensor, indices: Tensor) -> Tensor:
        return valid & (indices >= 0).any(-1)  # a vector may overflow float32 before it reaches a component

    def _check_indices(self, indices: Tensor) -> Tensor:
        indices = super()._check_indices(indices)
        self._check_component_indices(self._columns(indices.reshape(-1, indices.shape[-1])))
        return indices

    def _check_component_indices(self, indices: Sequence[Tensor]) -> None:
        """If the components differ in size, have each of them check its own indices."""
        if self._sizes_differ:
            for component, own in zip(self.components, indices, strict=False):
                component._check_indices(own)

    @abc.abstractmethod
    def _component_inputs(self, projected: Rows, indices: Tensor) -> list[tuple[RowQuantizer, Tensor, Tensor]]:
        """Each component with the vectors [N, component.dim] that it got, and the indices that it gave them."""

    def learned_rows(self, rows: Rows, indices: Tensor) -> Iterator[tuple[LearnedCodes, Tensor, Tensor]]:
        """See `LearnedCodes.learned_rows`. Residuals between components are computed from the current codes."""
        for component, vectors, column in self._component_inputs(self._project_in(rows), indices):
            yield from component.learned_rows(all_valid(vectors), column)

    @torch.no_grad()
    def observe_rows(self, rows: Rows, indices: Tensor) -> None:
        """Learn from a forward in training: from rows [N, dim] and the indices that it gave them."""
        self._observe_components(self._component_inputs(self._project_in(rows), indices))

    def _observe_components(self, inputs: Sequence[tuple[RowQuantizer, Tensor, Tensor]]) -> None:
        """Let each component learn once, from the vectors [N, component.dim] and indices of all its positions.

        A component that saw nothing learns from an empty batch, because other ranks may sum over all ranks.
        """
        for component in dict.fromkeys(self.components):
            if component.observes:
                own = [(vectors, column) for item, vectors, column in inputs if item is component]
                vectors, columns = zip(*(own or [_empty_batch(component, inputs[0][1])]), strict=True)
                component.observe_rows(all_valid(torch.cat(vectors)), torch.cat(columns))

    def _initialize_in_order(self, projected: Rows, walk: Walk, process_group: ProcessGroup) -> None:
        """Initialize each component from the vectors that the components before it leave.

        The vectors of a shared component's later positions depend on its codes. So if any is shared, there are two
        walks. In the first, a shared component gets codes at each of its positions from the vectors there, and
        leaves what a component for this position alone would leave. The second walk initializes it from the
        vectors of all its positions, of which each has about the same weight: otherwise the scale of one vector
        per map would get no codes beside one of hundreds.
        """
        seen: dict[RowQuantizer, list[Tensor]] = {}
        for _ in range(1 if len(self.quantizers) == len(self.order) else 2):
            known, seen = seen, {}
            walk(projected, _initializer(known, seen, process_group))

    def extra_repr(self) -> str:
        several = self.num_codebooks != len(self.order)  # in a component
        return super().extra_repr() + (f", num_codebooks={self.num_codebooks}" if several else "")


def _empty_batch(component: RowQuantizer, like: Tensor) -> tuple[Tensor, Tensor]:
    """No vectors, [0, component.dim] with the dtype and device of `like`, and their indices."""
    shape = (0, component.num_codebooks) if component.composed else (0,)
    return like.new_empty(0, component.dim), torch.empty(shape, dtype=torch.int64, device=like.device)


def _initializer(
    known: dict[RowQuantizer, list[Tensor]], seen: dict[RowQuantizer, list[Tensor]], process_group: ProcessGroup
) -> Initialize:
    """Initialize a component as `_initialize_in_order` says; `seen` collects the vectors of every position.

    Args: known: the vectors of every position in the walk before, empty in the first walk.
    """

    def initialize(component: RowQuantizer, vectors: Tensor) -> None:
        if component not in seen:
            others = known.get(component, [])[1:]
            _initialize_from([vectors, *others], component, process_group)
        elif not known:
            with suppress(ValueError):  # no vector counts here: the codes of the position before serve
                _initialize_from([vectors], component, process_group)
        seen.setdefault(component, []).append(vectors)

    return initialize


def _initialize_from(positions: list[Tensor], component: RowQuantizer, process_group: ProcessGroup) -> None:
    """Initialize a component from the vectors [n, component.dim] of several positions, repeated to similar n."""
    most = max(map(len, positions))
    rows = all_valid(torch.cat([vectors.repeat(most // max(1, len(vectors)), 1) for vectors in positions]))
    component.initialize_rows(rows.with_vectors(rows.vectors, are_finite(rows.vectors)), process_group)


def outermost(model: nn.Module) -> dict[str, Quantizer]:
    """The quantizers in a model by name, except those inside another one.

    If the model is itself a quantizer, its name is ''. Names are those of the model without
    DistributedDataParallel, torch.compile or another wrapper around it.
    """
    quantizers = {name: module for name, module in named_modules(model) if isinstance(module, Quantizer)}
    inner = {module for outer in quantizers.values() for module in outer.modules() if module is not outer}
    return {name: module for name, module in quantizers.items() if module not in inner}


def all_valid(vectors: Tensor) -> Rows:
    """Vectors [N, D] as rows that all count."""
    valid = torch.ones(vectors.shape[:1], dtype=torch.bool, device=vectors.device)
    return Rows(vectors, valid, vectors.shape[:1])


def joined(columns: Sequence[Tensor]) -> Tensor:
    """Indices [N] or [N, n] of several components, side by side."""
    return torch.cat([column if column.dim() > 1 else column[:, None] for column in columns], -1)


def has_codes(column: Tensor) -> Tensor:
    """Whether rows have any index in a component's indices [N] or [N, n]; one with dropout may lack some."""
    return column >= 0 if column.dim() == 1 else (column >= 0).any(-1)


def check_component(component: object) -> RowQuantizer:
    """Return `component` if a composed quantizer can contain it; otherwise raise a sentence that says why not."""
    if not isinstance(component, Quantizer):
        raise TypeError(f"a component is {component!r}, expected a Quantizer")
    if component.channel_dim != -1:
        raise ValueError(
            f"a component has channel_dim={component.channel_dim}, expected −1: it gets vectors with channels last"
        )
    name = type(component).__name__
    if not isinstance(component, RowQuantizer) or not component.per_vector:
        raise ValueError(f"a component is {name}, which quantizes maps; expected a quantizer of single vectors")
    if component.codebook_size < 1:
        raise ValueError(f"a component is {name}, which has no codes; expected a quantizer with codes")
    return component
