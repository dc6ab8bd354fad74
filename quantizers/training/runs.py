"""Running a model on batches, each time from the same buffers."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn

from quantizers.core.base import Quantizer
from quantizers.core.code_hooks import CodeHook, code_hooks_paused
from quantizers.kernels.common.compat import without_compilation
from quantizers.training.batches import Arguments, Mover
from quantizers.training.restoring import SavedBuffers, modes, random_generators

Forward = Callable[[nn.Module, Any], object]
"""Called as forward(model, batch)."""


class ModelRuns:
    """Runs a model on batches, and restores its buffers after each run.

    Args:
        model: the model, possibly in wrappers.
        quantizers: its outermost quantizers, whose buffers are not restored.
        forward: runs the model on a batch; None to call the model with the arguments that a batch contains.
        caller: the name of the function that runs the model, for messages.
    """

    def __init__(
        self, model: nn.Module, quantizers: Collection[Quantizer], forward: Forward | None, *, caller: str
    ) -> None:
        self._model = _callable_part(model)
        self._forward = forward
        self._arguments = Arguments(model, caller) if forward is None else None
        self._move = Mover(model)
        self._buffers = SavedBuffers(model, quantizers)

    def inputs(self, batches: Iterable[Any], *, several_passes: bool) -> Iterable[Any]:
        """What `run` needs of each batch.

        If `batches` is an iterator and the result must allow several passes, all inputs are held in memory.
        """
        if not isinstance(batches, Iterator):
            return _Inputs(batches, self._input)
        inputs = map(self._input, batches)
        return list(inputs) if several_passes else inputs

    def _input(self, batch: Any) -> Any:
        return batch if self._arguments is None else self._arguments.of(batch)

    def run(self, model_input: Any) -> object:
        """Run the model on one of the `inputs`. Returns: what `forward` or the model returns."""
        try:
            if self._forward is not None:
                return self._forward(self._model, model_input)
            positional, keyword = self._move(model_input)
            output: object = self._model(*positional, **keyword)
            return output
        except Exception as error:
            if self._arguments is not None:
                self._arguments.explain(error)
            raise
        finally:
            self._buffers.restore()


class _Inputs:
    """The inputs of batches, made anew in each pass over them."""

    def __init__(self, batches: Iterable[Any], to_input: Callable[[Any], Any]) -> None:
        self._batches = batches
        self._to_input = to_input

    def __iter__(self) -> Iterator[Any]:
        return map(self._to_input, self._batches)


def check_batches(batches: Iterable[Any]) -> Iterable[Any]:
    """Return the batches. Raises: TypeError if they are a single batch."""
    if isinstance(batches, Tensor | np.ndarray | Mapping):
        raise TypeError(
            f"batches is a {type(batches).__name__}, expected an iterable of batches: [batch] or a data loader"
        )
    return batches


@contextmanager
def undisturbed(model: nn.Module, quantizers: Collection[Quantizer], *, training: bool) -> Iterator[None]:
    """Run the model in eager mode, in the modes that `modes` sets and without the quantizers' hooks, until the
    block ends. Modes, hooks and the global random generators are then as before."""
    with (
        modes(model, quantizers, training),
        random_generators(model),
        code_hooks_paused(quantizers),
        without_compilation(),
    ):
        yield


@contextmanager
def code_hook(quantizers: Collection[Quantizer], hook: CodeHook) -> Iterator[None]:
    """Register a code hook on each of these quantizers until the block ends."""
    with ExitStack() as handles:
        for quantizer in quantizers:
            handles.enter_context(quantizer.register_code_hook(hook))
        yield


def _callable_part(model: nn.Module) -> nn.Module:
    """The model without wrappers whose forward does more than is needed here, such as waiting for other ranks."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif "_orig_mod" in dict(model.named_children()):
            model = model.get_submodule("_orig_mod")
        else:
            return model
