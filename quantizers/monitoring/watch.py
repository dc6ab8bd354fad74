"""The codebook use of every quantizer in a model, collected while the model runs.

`quantizers.watch` is the function: `from quantizers import watch`.
"""

from itertools import chain
from types import TracebackType

import torch
from torch import Tensor, nn

from quantizers.composite.composed import outermost
from quantizers.composite.pyramid_quantizer import PyramidQuantizer, shown_scale
from quantizers.core.base import Quantizer
from quantizers.core.code_hooks import ForwardEvent
from quantizers.kernels.common.compat import is_exporting
from quantizers.monitoring.usage import CodebookUsage, check_sizes, count_, new_slots

Results = dict[str, dict[str, Tensor]]

COLUMNS = ("quantizer", "codebook", "codes", "vectors", "used %", "max %", "perplexity", "bits/code", "dead")


def watch(model: nn.Module, *, training: bool | None = None) -> "Watch":
    """Count the codes that the quantizers in a model choose from now on, without a change to the model's code.

        >>> import torch, quantizers
        >>> from quantizers import watch
        >>> model = torch.nn.Sequential(torch.nn.Identity(), quantizers.FSQ(2, levels=(2, 2)))
        >>> with watch(model) as usage:
        ...     for epoch in range(2):
        ...         usage.reset()
        ...         output = model(torch.ones(10, 2))
        >>> print(usage.table())
        quantizer  codebook  codes  vectors  used %  max %  perplexity  bits/code  dead
        1                 0      4       10    25.0  100.0         1.0       0.00     3

    Each outermost quantizer counts the indices of its `forward`, `forward_stages` and `encode`, in any grad mode.
    A vector counts each time it is quantized. The quantizers inside another one count as its codebooks. The second
    forward of activation checkpointing does not count. Nothing in a forward waits for the device. A compiled model
    counts, whether it is compiled before or after this call. Exported programs, copies and pickles do not count.

    On several ranks, `compute`, `scalars` and `table` sum the counts over all ranks, and every rank must call
    them. `reset` and `remove` act on each rank separately.

    Args:
        model: a module that contains quantizers, or a quantizer. Identity, which has no codes, is left out.
        training: True to count forwards in training mode only, False to count those in evaluation mode only, so
            that the training of an epoch and its validation are counted separately; None to count all forwards.

    Raises: ValueError for a model without a quantizer, and for a codebook that is too large to count code by code,
        see `quantizers.usage.CodebookUsage`.
    """
    return Watch(model, training)


class Watch:
    """The counts of a watched model, as `watch` returns them.

    As a context manager it stops counting at the end of the block, and the counts remain available.
    """

    def __init__(self, model: nn.Module, training: bool | None) -> None:
        quantizers = outermost(model)
        if not quantizers:
            raise ValueError(f"model is {type(model).__name__}, which contains no quantizer")
        with_codes = {name: quantizer for name, quantizer in quantizers.items() if quantizer.codebook_size}
        for name, quantizer in with_codes.items():
            try:
                check_sizes(quantizer.codebook_sizes)
            except ValueError as error:
                raise ValueError(f"quantizer {name!r}: {error}") from error
        self._counting = {
            name: (quantizer, Counting(quantizer, training)) for name, quantizer in with_codes.items()
        }
        self._handles = [quantizer.register_code_hook(counting) for quantizer, counting in self._counting.values()]

    @property
    def usage(self) -> dict[str, CodebookUsage]:
        """The counts since `reset`: a metric per quantizer, by its name in the model ('' for the model itself).

        The metrics are copies. Later forwards do not change them, and changing them does not affect this object.
        """
        return {name: counting.usage() for name, (_, counting) in self._counting.items()}

    def compute(self) -> Results:
        """Return the results of `CodebookUsage.compute` for each quantizer, by its name in the model."""
        return {name: usage.compute() for name, usage in self.usage.items()}

    def scalars(self, prefix: str = "") -> dict[str, float]:
        """Return the results of `compute` as numbers for a logger.

        Keys are such as "name/perplexity", or "name/0/perplexity" for a quantizer with several codebooks.
        """
        scalars = {}
        for name, results in self.compute().items():
            for key, values in results.items():
                for number, value in enumerate(values.reshape(-1).tolist()):
                    stage = [str(number)] if values.ndim else []
                    scalars[prefix + "/".join([*([name] if name else []), *stage, key])] = value
        return scalars

    def table(self) -> str:
        """Return the results of `compute` as text, with one line per codebook.

        A codebook of a multi-scale quantizer is labelled with its scale. "max %" is the largest utilization that
        the number of vectors allows.
        """
        rows: list[tuple[str, ...]] = [COLUMNS]
        for name, usage in self.usage.items():
            results = {key: values.reshape(-1).tolist() for key, values in usage.compute().items()}
            labels = _labels(self._counting[name][0])
            for number, (label, size) in enumerate(zip(labels, usage.sizes, strict=True)):
                result = {key: values[number] for key, values in results.items()}
                rows.append((name or "(model)", label, f"{size}", *_cells(result)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
        )

    def reset(self) -> None:
        """Set all counts to zero."""
        for _, counting in self._counting.values():
            counting.slots.zero_()

    def remove(self) -> None:
        """Stop counting."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def _labels(quantizer: Quantizer) -> list[str]:
    """A label for each codebook: its number, or its scale relative to the finest."""
    if isinstance(quantizer, PyramidQuantizer):
        return [f"scale {shown_scale(scale)}" for scale in quantizer.scales]
    return [f"{number}" for number in range(len(quantizer.codebook_sizes))]


def _cells(result: dict[str, float]) -> tuple[str, ...]:
    """The cells of one codebook in the table, from its results."""
    return (
        f"{result['vectors']}",
        f"{100 * result['utilization']:.1f}",
        f"{100 * result['possible']:.1f}",
        f"{result['perplexity']:.1f}",
        f"{result['entropy']:.2f}",
        f"{result['dead_codes']}",
    )


class Counting:
    """A code hook that counts its indices.

    The counts are not the state of a metric but a tensor that is never replaced while the model stays on its
    device, because graphs of `torch.compile` and CUDA write to it.
    """

    def __init__(self, quantizer: Quantizer, training: bool | None) -> None:
        self.sizes = quantizer.codebook_sizes
        self.training = training
        tensors = (tensor for tensor in chain(quantizer.parameters(), quantizer.buffers()) if not tensor.is_meta)
        first = next(tensors, None)
        self.slots = new_slots(self.sizes, None if first is None else first.device)

    def __call__(self, quantizer: Quantizer, event: ForwardEvent) -> None:
        indices = event.indices
        if is_exporting() or indices.is_meta:
            return
        if self.training is not None and self.training != quantizer.training:
            return
        if self.slots.device != indices.device:  # the model was moved to another device
            with torch.inference_mode(False):
                self.slots = self.slots.to(indices.device)
        count_(self.slots, quantizer.indices_by_codebook(indices, event.x, event.sizes))

    def usage(self) -> CodebookUsage:
        """A metric with these counts."""
        usage = CodebookUsage(self.sizes).to(self.slots.device)
        usage.update([self.slots.new_zeros(0)] * len(self.sizes))
        usage.slots += self.slots
        return usage
