"""How codebooks are used, as a metric of torchmetrics: counts that add over batches and ranks."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from quantizers.core.arguments.checks import check_at_least, check_integers
from quantizers.core.base import Quantizer
from quantizers.core.recompute import choose, is_recomputing
from quantizers.monitoring import metrics

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError("quantizers.usage needs torchmetrics: pip install quantizers-torch[metrics]") from error

LARGEST_TABLE = 2**24  # codes that are counted one by one: 128 MiB
FIRST = 2  # slots before those of the codes: of indices below −1, and of −1


class CodebookUsage(Metric):
    """Utilization, perplexity, entropy and dead codes of one codebook or several, each counted by itself.

        usage = CodebookUsage.of(quantizer)
        for x in data:
            usage.update(quantizer(x).indices)
        usage.compute()  # {"utilization": ..., "perplexity": ..., "entropy": ..., "dead_codes": ...}
        usage.reset()  # the next epoch counts from zero

    Counts are int64, are summed over ranks at `compute`, and do not wait for the device in `update`. The second
    forward of activation checkpointing does not count.

    Args:
        codebook_size: K ≥ 1, of one codebook; or a sequence, of each.
        kwargs: those of torchmetrics.Metric, as `process_group`.

    Raises: ValueError for a size below 1, no size, and codebooks of more than 2²⁴ codes together (several count
    with the largest of their sizes): an FSQ, LFQ or BSQ may have too many to count one by one.
    """

    is_differentiable = False
    full_state_update = False
    plot_lower_bound = 0.0

    slots: Tensor

    def __init__(self, codebook_size: int | Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        sizes = (codebook_size,) if isinstance(codebook_size, int) else tuple(codebook_size)
        self.sizes = check_sizes(sizes)
        self.add_state("slots", new_slots(self.sizes), dist_reduce_fx="sum")

    @classmethod
    def of(cls, quantizer: Quantizer, **kwargs: Any) -> "CodebookUsage":
        """For the indices of a quantizer. Raises: as the class; Identity has no codes."""
        return cls(quantizer.codebook_sizes, **kwargs)

    def update(self, indices: Tensor | Sequence[Tensor]) -> None:
        """Count indices.

        Args:
            indices: integers [...] of one codebook, or [..., num_codebooks]; or for each codebook a tensor of any
                shape, as `MultiScaleQuantizer.split` gives them. Index −1 does not count.

        Raises: TypeError for indices that are not integers, ValueError where they are not of as many codebooks. An
            index outside [−1, K) is an IndexError of `compute`: to see it here would be to wait for the device.
        """
        columns = self._columns(indices)
        if self.slots.is_inference() and not torch.is_inference_mode_enabled():
            self.slots = self.slots.clone()  # it was reset in that mode, outside which its memory is read-only
        count_(self.slots, columns)

    def compute(self) -> dict[str, Tensor]:
        """What the counts since `reset` say: float32, `dead_codes` int64, [num_codebooks] or 0-d for one codebook.

        - utilization: the fraction of codes that occur, 0 to 1.
        - perplexity: 2^entropy, how many equally likely codes would carry as much, 1 to K.
        - entropy: in bits a code, 0 to log₂ K.
        - dead_codes: how many codes do not occur.

        Where nothing counted: 0, 1, 0 and K. On several ranks each of them must call.

        Raises: IndexError after an index outside [−1, K).
        """
        counts = self.counts
        device = self.slots.device
        values = {
            name: torch.tensor([measure(of_one) for of_one in counts], dtype=torch.float32, device=device)
            for name, measure in (
                ("utilization", metrics.utilization),
                ("perplexity", metrics.perplexity),
                ("entropy", metrics.entropy),
            )
        }
        return {**values, "dead_codes": torch.stack([(of_one == 0).sum() for of_one in counts])}

    @property
    def counts(self) -> list[Tensor]:
        """How often each code has occurred on this rank since `reset`: int64 [K] for each codebook.

        Raises: IndexError after an index outside [−1, K).
        """
        for place, (row, size) in enumerate(zip(self.slots, self.sizes, strict=True)):
            outside = int(row[0] + row[FIRST + size :].sum())
            if outside:
                raise IndexError(f"{outside} indices of codebook {place} were outside [−1, {size})")
        return [row[FIRST : FIRST + size] for row, size in zip(self.slots, self.sizes, strict=True)]

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw what `compute` gives, or values of it that were kept, over time.

        Args: val: a value of `compute`, or a list of them, one a step; default the present one. ax: matplotlib
        axes.

        Returns: figure (None where `ax` is given) and axes. Raises: ModuleNotFoundError without matplotlib.
        """
        return self._plot(val, ax)

    def set_dtype(self, dst_type: str | torch.dtype) -> Self:
        """The metric as it is: counts are int64, and the values of `compute` float32, whatever is asked for."""
        return self

    def _columns(self, indices: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
        """The indices of each codebook."""
        if isinstance(indices, Tensor):
            if len(self.sizes) > 1 and indices.shape[-1:] != (len(self.sizes),):
                raise ValueError(
                    f"indices have shape {tuple(indices.shape)}, expected {len(self.sizes)} on the last axis, "
                    "one of each codebook"
                )
            columns = indices.unbind(-1) if len(self.sizes) > 1 else (indices,)
        else:
            columns = tuple(indices)
            if len(columns) != len(self.sizes):
                raise ValueError(f"indices are {len(columns)} tensors, expected {len(self.sizes)}, one a codebook")
        for column in columns:
            check_integers("indices have", column)
        return columns


def check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes of codebooks, if their codes can be counted one by one; else a sentence that says why not."""
    if not sizes:
        raise ValueError("codebook_size is empty, expected at least one")
    for size in sizes:
        check_at_least("codebook_size", size, 1)
    if len(sizes) * max(sizes) > LARGEST_TABLE:
        raise ValueError(
            f"{len(sizes)} codebooks of up to {max(sizes)} codes are too large to count code by code, expected at "
            f"most {LARGEST_TABLE} codes together"
        )
    return tuple(sizes)


def new_slots(sizes: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Zeros [num_codebooks, K + 3], K the largest size: for indices below −1, −1, the codes, and those above."""
    with torch.inference_mode(False):
        return torch.zeros(len(sizes), max(sizes) + FIRST + 1, dtype=torch.int64, device=device)


def count_(slots: Tensor, columns: Sequence[Tensor]) -> None:
    """Add how often indices occur in `columns`, of each codebook or of the first ones, to their slots."""
    width = slots.shape[1]
    low, high = -FIRST, width - 1 - FIRST
    places = [
        column.reshape(-1).long().clamp(low, high) + (number * width + FIRST)
        for number, column in enumerate(columns)
    ]
    flat = torch.cat(places)
    again = is_recomputing(flat)
    slots.view(-1).scatter_add_(0, flat, choose(again, torch.zeros_like(flat), torch.ones_like(flat)))
