"""First codes for the quantizers in a model, from the vectors that the model itself gives them."""

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quantizers.composite.composed import outermost
from quantizers.composite.multiscale import MultiScaleQuantizer
from quantizers.core.arguments.checks import check_at_least
from quantizers.core.base import Quantizer
from quantizers.core.code_hooks import CodeHook, ForwardEvent, code_hooks_paused
from quantizers.core.layout import Rows, to_rows
from quantizers.core.parallel import ProcessGroup
from quantizers.core.wrappers import unwrapped
from quantizers.training.batches import Arguments, Mover

Forward = Callable[[nn.Module, Any], object]


@torch.no_grad()
def warm_start(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    training: bool = True,
    forward: Forward | None = None,
    max_vectors: int = 2**17,
    process_group: ProcessGroup = "world",
) -> None:
    """Set the codes of every quantizer in a model by k-means on the vectors that reach it in training.

    Quantizers take their turns in the order in which a forward reaches them, so that those further on see what the
    earlier ones make of their new codes (VQ-VAE-2, Razavi et al. 2019, arXiv 1906.00446). For each, all batches
    run through the model, without gradients, no further than to its forward or `encode`; then
    `quantizer.initialize_from` does the rest, also for what it holds. Frozen codes (`Quantizer.freeze`) stay.

    The model runs as its first training step will: BatchNorm with the batch's statistics, dropout active. A model
    in training mode runs as it is, so that a module in it that is in evaluation mode, as a frozen BatchNorm, stays
    so. A model in evaluation mode, as `from_pretrained` gives it, runs as its own `train()` leaves it. Quantizers
    themselves are in evaluation mode. A compiled model runs as it was written.

    Modes, gradients, buffers, hooks, and the global random generators of torch, numpy and Python are afterwards as
    before, also where something raises. Each forward begins with the buffers of before: those that it moves, as
    running statistics, are put back. What a module keeps outside of its buffers stays as a forward leaves it, with
    buffers that it does not save and has made anew in another size.

    Args:
        model: a module with quantizers in it, or a quantizer; perhaps in DistributedDataParallel, DataParallel or
            torch.compile.
        batches: what a data loader gives. Of a batch the model gets what its forward takes: a tensor or a numpy
            array as its first argument; of a tuple or a list as many elements as the forward requires, so that
            labels behind them are left out, and optional arguments such as a mask too; of a mapping (a dict,
            transformers' BatchFeature) the entries named as parameters of the forward. Tensors are moved to the
            model's device. Batches are gone through once for each quantizer; of an iterator, what the model gets
            is kept in memory where there are several.
        training: False to run the whole model in evaluation mode instead.
        forward: `forward(model, batch)` runs the model on a batch, in place of the above, for models that take
            it otherwise: `lambda model, batch: model.encode(batch["image"])`. It gets the batch as it is, and the
            model without a wrapper.
        max_vectors: the most that are kept for one quantizer on each rank, drawn uniformly from all that reach it.
            Of a MultiScaleQuantizer whole maps are kept, at least one, with as many positions together.
        process_group: whose vectors count, "world" for those of all ranks, each of which must call, with a batch.
            Modules that wait for other ranks in training, as SyncBatchNorm, need as many batches on each of them.

    Raises: ValueError where the model holds no quantizer, where no batch reaches one of them, for maps of several
        sizes before a MultiScaleQuantizer, for max_vectors < 1, and as `Quantizer.initialize_from`; TypeError for
        a batch of another kind, or one in which the forward does not find its arguments.
    """
    check_at_least("max_vectors", max_vectors, 1)
    outer = outermost(model)
    if not outer:
        raise ValueError(f"model is {type(model).__name__}, which holds no quantizer")
    if isinstance(batches, Tensor | np.ndarray | Mapping):
        raise TypeError(f"batches is {type(batches).__name__}, expected batches, as [batch] or a data loader")
    waiting = {name: quantizer for name, quantizer in outer.items() if not quantizer.frozen}
    run = _Run(model, outer.values(), forward)
    prepared = _prepared(batches, run, keep=len(waiting) > 1)
    with (
        _modes(model, outer.values(), training),
        _random_state(model),
        code_hooks_paused(outer.values()),
        torch.compiler.set_stance("force_eager"),
    ):
        while waiting:
            quantizer, sample = _collected(run, prepared, waiting, max_vectors)
            quantizer.initialize_rows(sample.rows(), process_group)
            waiting = {name: other for name, other in waiting.items() if other is not quantizer}


def _prepared(batches: Iterable[Any], run: "_Run", *, keep: bool) -> Iterable[Any]:
    """What the model gets of each batch, to be gone through several times if `keep`."""
    if not isinstance(batches, Iterator):
        return _Again(batches, run)
    prepared = map(run.prepare, batches)
    return list(prepared) if keep else prepared


class _Again:
    """Goes through the batches anew each time."""

    def __init__(self, batches: Iterable[Any], run: "_Run") -> None:
        self._batches = batches
        self._run = run

    def __iter__(self) -> Iterator[Any]:
        return map(self._run.prepare, self._batches)


class _Run:
    """Runs a model on a batch, and puts back the buffers that a forward moves."""

    def __init__(self, model: nn.Module, quantizers: Collection[Quantizer], forward: Forward | None) -> None:
        self._model = _inside(model)
        self._forward = forward
        self._arguments = Arguments(model) if forward is None else None
        self._move = Mover(model)
        own = {part for quantizer in quantizers for part in quantizer.modules()}
        self._buffers = [
            (module, name, buffer, None if buffer is None else buffer.clone())
            for module in model.modules()
            if module not in own
            for name, buffer in module._buffers.items()
            if buffer is None or not nn.parameter.is_lazy(buffer)
        ]

    def prepare(self, batch: Any) -> Any:
        """What is needed of a batch."""
        return batch if self._arguments is None else self._arguments.of(batch)

    def __call__(self, prepared: Any) -> None:
        try:
            if self._forward is not None:
                self._forward(self._model, prepared)
            else:
                positional, keyword = self._move(prepared)
                self._model(*positional, **keyword)
        finally:
            self._restore()

    def _restore(self) -> None:
        for module, name, buffer, value in self._buffers:
            now = module._buffers.get(name)
            if name in module._non_persistent_buffers_set and _shape(now) != _shape(value):
                continue  # a cache, made anew in another size, which the module keeps in an attribute
            module._buffers[name] = buffer
            if buffer is not None and value is not None and not torch.equal(buffer, value):
                buffer.copy_(value)


def _shape(buffer: Tensor | None) -> torch.Size | None:
    return None if buffer is None else buffer.shape


def _inside(model: nn.Module) -> nn.Module:
    """The model without wrappers whose forward does more than it needs here, as to wait for other ranks."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif "_orig_mod" in dict(model.named_children()):
            model = model.get_submodule("_orig_mod")
        else:
            return model


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
    run: _Run, prepared: Iterable[Any], waiting: dict[str, Quantizer], limit: int
) -> tuple[Quantizer, _Sample]:
    """The quantizer that is reached first of those waiting, and a sample of its vectors in all batches."""
    found: list[tuple[Quantizer, _Sample]] = []

    def collect(quantizer: Quantizer, event: ForwardEvent) -> None:
        if not found:
            found.append((quantizer, _Sample(quantizer, limit)))
        if found[0][0] is quantizer:
            found[0][1].add(event.x, event.mask)
            raise _ReachedError

    count = 0
    with _code_hook(waiting.values(), collect):
        for each in prepared:
            count += 1
            with suppress(_ReachedError):
                run(each)
    if not found:
        names = ", ".join(repr(name) for name in waiting)
        raise ValueError(
            f"no quantizer of {names} was reached in {count} batches; training=False runs the model in evaluation "
            "mode, and forward=lambda model, batch: ... as you say"
            if count
            else "batches is empty, expected at least one batch, and for several quantizers as many again"
        )
    return found[0]


@contextmanager
def _code_hook(quantizers: Collection[Quantizer], hook: CodeHook) -> Iterator[None]:
    """A hook on each of these quantizers, until the block ends."""
    with ExitStack() as handles:
        for quantizer in quantizers:
            handles.enter_context(quantizer.register_code_hook(hook))
        yield


@contextmanager
def _modes(model: nn.Module, quantizers: Collection[Quantizer], training: bool) -> Iterator[None]:
    """The modes that `warm_start` describes, and afterwards each module in its own again."""
    modes = [(module, module.training) for module in model.modules()]
    inside = unwrapped(model)
    begins_training = training and not inside.training
    try:
        if begins_training:
            inside.train()  # perhaps a method of its own, which leaves some modules as they are
        evaluated = (
            [part for quantizer in quantizers for part in quantizer.modules()] if training else model.modules()
        )
        for module in evaluated:
            module.training = False
        yield
    finally:
        if begins_training:
            inside.eval()
        for module, mode in modes:
            module.training = mode


@contextmanager
def _random_state(model: nn.Module) -> Iterator[None]:
    """The global random generators are afterwards as before, on the CPU and on the model's devices."""
    devices = {tensor.device for tensor in chain(model.parameters(), model.buffers())} - {torch.device("cpu")}
    states = [(device, _state_of(device)) for device in devices if device.type != "meta"]
    own, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(own)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
        for device, state in states:
            _set_state(device, state)


def _state_of(device: torch.device) -> Tensor:
    generators: Any = torch.get_device_module(device)
    state: Tensor = generators.get_rng_state(*_numbered(device))
    return state


def _set_state(device: torch.device, state: Tensor) -> None:
    generators: Any = torch.get_device_module(device)
    generators.set_rng_state(state, *_numbered(device))


def _numbered(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # of which there is one
