"""First codes for the quantizers in a model, from the vectors that the model itself gives them."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from quantizers.base import Heard, Listener, Quantizer, check_at_least
from quantizers.composed import outermost
from quantizers.layout import Rows, to_rows
from quantizers.multiscale import MultiScaleQuantizer
from quantizers.parallel import ProcessGroup

Batch = Tensor | tuple[Any, ...] | list[Any] | dict[str, Any]


@torch.no_grad()
def warm_start(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    max_vectors: int = 2**17,
    process_group: ProcessGroup = "world",
) -> None:
    """Set the codes of every quantizer in a model by k-means on the vectors that reach it.

    Quantizers take their turns in the order in which a forward reaches them, so that those further on see what the
    earlier ones make of their new codes (VQ-VAE-2, Razavi et al. 2019, arXiv 1906.00446). For each, all batches
    run through the model in evaluation mode, without gradients, no further than to its forward or `encode`; then
    `quantizer.initialize_from` does the rest, also for what it holds. Modes, gradients, statistics and hooks are
    afterwards as before, also where something raises. A compiled model runs as it was written.

    Args:
        model: a module with quantizers in it, or a quantizer.
        batches: what the model takes, on its device: tensors, tuples or lists of positional arguments, or dicts of
            keyword arguments. They are gone through once for each quantizer; an iterator is kept as a list.
        max_vectors: the most that are kept for one quantizer on each rank, drawn uniformly from all that reach it.
            Of a MultiScaleQuantizer whole maps are kept, at least one, with as many positions together.
        process_group: whose vectors count, "world" for those of all ranks, each of which must call, with a batch.

    Raises: ValueError where the model holds no quantizer, where no batch reaches one of them, for maps of several
        sizes before a MultiScaleQuantizer, for max_vectors < 1, and as `Quantizer.initialize_from`; TypeError for
        a batch of another kind.
    """
    check_at_least("max_vectors", max_vectors, 1)
    waiting = outermost(model)
    if not waiting:
        raise ValueError(f"model is {type(model).__name__}, which holds no quantizer")
    batches = list(batches) if isinstance(batches, Iterator) else batches
    with _in_evaluation(model), torch.compiler.set_stance("force_eager"):
        while waiting:
            quantizer, sample = _collected(model, batches, waiting, max_vectors)
            quantizer.initialize_rows(sample.rows(), process_group)
            waiting = {name: other for name, other in waiting.items() if other is not quantizer}


class _ReachedError(BaseException):
    """Ends a forward where its quantizer is reached; no model's `except Exception` takes it for an error."""


class _Sample:
    """A uniform draw of at most `limit` positions from all that come, as vectors or as whole maps."""

    def __init__(self, quantizer: Quantizer, limit: int) -> None:
        self._quantizer = quantizer
        self._limit = limit
        self._size = torch.Size()
        self._kept: tuple[Tensor, ...] = ()  # keys [n], vectors [n, positions, dim], valid [n, positions]

    def add(self, x: Tensor, mask: Tensor | None) -> None:
        rows = to_rows(x, mask, self._quantizer.dim, self._quantizer.channel_dim)
        size = torch.Size()
        if isinstance(self._quantizer, MultiScaleQuantizer):
            size = rows.shape[-self._quantizer.axes :]
        else:
            rows = rows._replace(vectors=rows.vectors[rows.valid], valid=rows.valid[rows.valid])
        if self._kept and size != self._size:
            raise ValueError(
                f"maps have sizes {tuple(self._size)} and {tuple(size)}, expected one size in all batches"
            )
        positions, self._size = size.numel(), size
        vectors, valid = rows.vectors.reshape(-1, positions, rows.vectors.shape[1]), rows.valid.view(-1, positions)
        # Those with the smallest of independent keys are a uniform draw, however many are yet to come.
        keys = torch.rand(len(valid), dtype=torch.float64, device=valid.device)
        new = (keys, vectors, valid)
        kept = tuple(map(torch.cat, zip(self._kept, new, strict=True))) if self._kept else new
        count = max(1, self._limit // max(1, positions))
        if len(kept[0]) > count:
            chosen = kept[0].topk(count, largest=False).indices.sort().values
            kept = tuple(part[chosen] for part in kept)
        self._kept = kept

    def rows(self) -> Rows:
        _, vectors, valid = self._kept
        flat = valid.reshape(-1)
        shape = torch.Size((len(valid), *self._size))
        return Rows(vectors.reshape(-1, vectors.shape[-1]), flat, torch.ones_like(flat), shape)


def _collected(
    model: nn.Module, batches: Iterable[Batch], waiting: dict[str, Quantizer], limit: int
) -> tuple[Quantizer, _Sample]:
    """The quantizer that is reached first of those waiting, and a sample of its vectors in all batches."""
    found: list[tuple[Quantizer, _Sample]] = []

    def collect(quantizer: Quantizer, heard: Heard) -> None:
        if not found:
            found.append((quantizer, _Sample(quantizer, limit)))
        if found[0][0] is quantizer:
            found[0][1].add(heard.x, heard.mask)
            raise _ReachedError

    count = 0
    with _heard(waiting.values(), collect):
        for batch in batches:
            count += 1
            with suppress(_ReachedError):
                _call(model, batch)
    if not found:
        names = ", ".join(repr(name) for name in waiting)
        raise ValueError(
            f"no quantizer of {names} was reached in {count} batches"
            if count
            else "batches is empty, expected at least one batch"
        )
    return found[0]


def _call(model: nn.Module, batch: Batch) -> None:
    if isinstance(batch, Tensor):
        model(batch)
    elif isinstance(batch, tuple | list):
        model(*batch)
    elif isinstance(batch, dict):
        model(**batch)
    else:
        raise TypeError(f"a batch is {type(batch).__name__}, expected a tensor, a tuple, a list or a dict")


@contextmanager
def _heard(quantizers: Collection[Quantizer], listener: Listener) -> Iterator[None]:
    for quantizer in quantizers:
        quantizer.listen(listener)
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.unlisten(listener)


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    """Every submodule in evaluation mode, and afterwards in its own again, whatever a `train` of its own does."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training
