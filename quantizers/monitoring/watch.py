"""The codebook use of every quantizer in a model, collected while the model runs."""

from itertools import chain
from types import TracebackType

import torch
from torch import Tensor, nn

from quantizers.composite.composed import outermost
from quantizers.core.base import Quantizer
from quantizers.core.code_hooks import ForwardEvent
from quantizers.monitoring.usage import CodebookUsage, check_sizes, count_, new_slots

Results = dict[str, dict[str, Tensor]]


def watch(model: nn.Module, *, training: bool | None = None) -> "Watch":
    """Count the codes that the quantizers in a model give, from now on, without touching the model's code.

        with watch(model) as usage:
            for epoch in range(epochs):
                usage.reset()
                for x in data:
                    ...
                print(usage.table())

    Each outermost quantizer counts what its `forward`, `forward_stages` and `encode` give, in any grad mode, a
    vector as often as it is quantized; those inside another count as its stages. The second forward of activation
    checkpointing does not count. Nothing in a forward waits for the device. A compiled model counts, whether it is
    compiled before or after; an exported program does not, nor does a copy of the model, or one that was pickled.

    On several ranks, `compute`, `scalars` and `table` sum the counts over all of them, each of which must call;
    `reset` and `remove` are each rank's own.

    Args:
        model: with quantizers in it, or one. Identity, which has no codes, is left out.
        training: True for forwards in training mode alone, False for those in evaluation mode alone, so that an
            epoch's training and the validation within it have numbers of their own; None for all.

    Raises: ValueError for a model without a quantizer, and for a codebook too large to count code by code, see
        CodebookUsage.
    """
    return Watch(model, training)


class Watch:
    """What `watch` returns. As a context manager it removes itself at the end; what it counted stays."""

    def __init__(self, model: nn.Module, training: bool | None) -> None:
        quantizers = outermost(model)
        if not quantizers:
            raise ValueError(f"model is {type(model).__name__}, which holds no quantizer")
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
        """The counts since `reset`: a metric for each quantizer, by its name in the model ('' for the model).

        They are copies: what is done with them, and what the model does later, leaves the other as it is.
        """
        return {name: counting.usage() for name, (_, counting) in self._counting.items()}

    def compute(self) -> Results:
        """What CodebookUsage.compute returns, for each quantizer by its name."""
        return {name: usage.compute() for name, usage in self.usage.items()}

    def scalars(self, prefix: str = "") -> dict[str, float]:
        """`compute` as numbers for a logger: "name/perplexity", and of several codebooks "name/0/perplexity"."""
        scalars = {}
        for name, results in self.compute().items():
            for key, values in results.items():
                for number, value in enumerate(values.reshape(-1).tolist()):
                    stage = [str(number)] if values.ndim else []
                    scalars[prefix + "/".join([*([name] if name else []), *stage, key])] = value
        return scalars

    def table(self) -> str:
        """`compute` as text: a line for each codebook."""
        rows = [("quantizer", "codebook", "codes", "used %", "perplexity", "bits/code", "dead")]
        for name, usage in self.usage.items():
            columns = [values.reshape(-1).tolist() for values in usage.compute().values()]
            for number, (used, perplexity, bits, dead) in enumerate(zip(*columns, strict=True)):
                size = usage.sizes[number]
                measured = (f"{100 * used:.1f}", f"{perplexity:.1f}", f"{bits:.2f}", f"{dead}")
                rows.append((name or "(model)", f"{number}", f"{size}", *measured))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
        )

    def reset(self) -> None:
        """Count from zero."""
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


class Counting:
    """A code hook that counts its indices.

    The counts are a tensor of its own and no metric's state: graphs of `torch.compile` and of CUDA write to it, so
    that it stays in its place.
    """

    def __init__(self, quantizer: Quantizer, training: bool | None) -> None:
        self.sizes = quantizer.codebook_sizes
        self.training = training
        held = (tensor for tensor in chain(quantizer.parameters(), quantizer.buffers()) if not tensor.is_meta)
        first = next(held, None)
        self.slots = new_slots(self.sizes, None if first is None else first.device)

    def __call__(self, quantizer: Quantizer, event: ForwardEvent) -> None:
        indices = event.indices
        if torch.compiler.is_exporting() or indices.is_meta:
            return
        if self.training is not None and self.training != quantizer.training:
            return
        if self.slots.device != indices.device:  # the model has moved
            with torch.inference_mode(False):
                self.slots = self.slots.to(indices.device)
        count_(self.slots, quantizer.indices_by_codebook(indices, event.x))

    def usage(self) -> CodebookUsage:
        """A metric that has counted as much."""
        usage = CodebookUsage(self.sizes).to(self.slots.device)
        usage.update([self.slots.new_zeros(0)] * len(self.sizes))
        usage.slots += self.slots
        return usage
