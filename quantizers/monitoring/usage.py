"""Codebook use as a metric of torchmetrics: counts that are summed over batches and ranks.

`quantizers.usage` is this module. It needs torchmetrics (the extra `metrics`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from quantizers.core.arguments.checks import check_at_least, check_integers
from quantizers.core.base import Quantizer
from quantizers.core.recompute import choose, is_recomputing
from quantizers.monitoring import metrics
from quantizers.monitoring.usage_plot import plot_usage

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError("quantizers.usage needs torchmetrics: pip install quantizers-torch[metrics]") from error

LARGEST_TABLE = 2**24  # counts, which take 128 MiB
FIRST = 2  # the slot of code 0, after one slot for indices below −1 and one for −1


class CodebookUsage(Metric):
    """Utilization, perplexity, entropy and dead codes of one codebook, or of each of several codebooks.

        >>> import torch, quantizers
        >>> quantizer = quantizers.FSQ(2, levels=(2, 2))
        >>> usage = quantizers.usage.CodebookUsage.of(quantizer)
        >>> for x in torch.ones(3, 5, 2):  # three batches that use one code
        ...     usage.update(quantizer(x).indices)
        >>> results = usage.compute()  # "utilization", "perplexity", "dead_codes", ...
        >>> results["utilization"], results["dead_codes"]
        (tensor(0.2500), tensor(3))
        >>> usage.reset()  # the next epoch counts from zero

    Counts are int64. `compute` sums them over the ranks, and `update` does not wait for the device. The second
    forward of activation checkpointing does not count.

    Args:
        codebook_size: K ≥ 1 of one codebook, or a sequence with the size of each codebook.
        kwargs: keyword arguments of torchmetrics.Metric, such as `process_group`.

    Raises: ValueError for a size below 1, for an empty sequence, and for n codebooks of at most K codes where
        n · K is more than 2²⁴. FSQ, LFQ and BSQ may have too many codes to count each.
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
        """Make a metric for the indices of a quantizer. Raises: as the class; Identity has no codes."""
        return cls(quantizer.codebook_sizes, **kwargs)

    def update(self, indices: Tensor | Sequence[Tensor]) -> None:
        """Count the indices of a batch.

        Args:
            indices: integers [...] for one codebook, or [..., num_codebooks]; or a sequence with a tensor of any
                shape per codebook, as `MultiScaleQuantizer.split` returns it. Index −1 does not count.

        Raises: TypeError for indices that are not integers; ValueError for another number of codebooks. For an
            index outside [−1, K), `compute` raises IndexError: a check here would have to wait for the device.
        """
        columns = self._columns(indices)
        if self.slots.is_inference() and not torch.is_inference_mode_enabled():
            self.slots = self.slots.clone()  # a reset in inference mode made it, which cannot be written outside
        count_(self.slots, columns)

    def compute(self) -> dict[str, Tensor]:
        """Measure the use of each codebook since `reset`.

        On several ranks, every rank must call this method.

        Returns: a dict of tensors [num_codebooks], or 0-d for one codebook.
            - utilization: the fraction of codes that occur, 0 to 1; float32.
            - perplexity: 2^entropy, the number of equally likely codes with the same entropy, 1 to K; float32.
            - entropy: in bits per code, 0 to log₂ K; float32.
            - dead_codes: the number of codes that do not occur; int64.
            - vectors: the number of vectors that chose a code; int64.
            - possible: the largest utilization that so many vectors allow, min(1, vectors / K); float32. A scale
              of few vectors per map cannot use more codes than it has vectors.
            Without any index these are 0, 1, 0, K, 0 and 0.

        Raises: IndexError after an index outside [−1, K).
        """
        counts = self.counts
        device = self.slots.device
        values = {
            name: torch.tensor([measure(codes) for codes in counts], dtype=torch.float32, device=device)
            for name, measure in (
                ("utilization", metrics.utilization),
                ("perplexity", metrics.perplexity),
                ("entropy", metrics.entropy),
            )
        }
        vectors = torch.stack([codes.sum() for codes in counts])
        sizes = torch.tensor(self.sizes, device=device)
        return {
            **values,
            "dead_codes": torch.stack([(codes == 0).sum() for codes in counts]),
            "vectors": vectors,
            "possible": vectors.clamp(max=sizes) / sizes,
        }

    @property
    def counts(self) -> list[Tensor]:
        """The number of times each code has occurred on this rank since `reset`: int64 [K] for each codebook.

        Raises: IndexError after an index outside [−1, K).
        """
        for number, (row, size) in enumerate(zip(self.slots, self.sizes, strict=True)):
            outside = int(row[0] + row[FIRST + size :].sum())
            if outside:
                raise IndexError(f"{outside} indices of codebook {number} were outside [−1, {size})")
        return [row[FIRST : FIRST + size] for row, size in zip(self.slots, self.sizes, strict=True)]

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot the codes in use and the perplexity of each codebook, both in percent of its codes.

        One result becomes bars, with a dashed line at what so many vectors could use at most; a list becomes lines
        over its steps.

        Args:
            val: a result of `compute` or `forward`, or a list with one result per step; by default the present
                result.
            ax: matplotlib axes to draw into.

        Returns: the figure (None if `ax` is given) and the axes.

        Raises: ModuleNotFoundError without matplotlib; ValueError for an empty list.
        """
        return plot_usage(self.compute() if val is None else val, self.sizes, ax)

    def set_dtype(self, dst_type: str | torch.dtype) -> Self:
        """Return the metric unchanged: counts are always int64, and the results of `compute` float32."""
        return self

    def _columns(self, indices: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
        """The indices of each codebook."""
        if isinstance(indices, Tensor):
            if len(self.sizes) > 1 and indices.shape[-1:] != (len(self.sizes),):
                raise ValueError(
                    f"indices have shape {tuple(indices.shape)}, expected {len(self.sizes)} on the last axis, "
                    "one for each codebook"
                )
            columns = indices.unbind(-1) if len(self.sizes) > 1 else (indices,)
        else:
            columns = tuple(indices)
            if len(columns) != len(self.sizes):
                raise ValueError(
                    f"got {len(columns)} tensors of indices for {len(self.sizes)} codebooks; expected one each"
                )
        for column in columns:
            check_integers("indices have", column)
        return columns


def check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes of codebooks as a tuple.

    Raises: ValueError for no sizes, a size below 1, or more counts than `LARGEST_TABLE`.
    """
    if not sizes:
        raise ValueError("codebook_size is empty, expected at least one size")
    for size in sizes:
        check_at_least("codebook_size", size, 1)
    if len(sizes) * max(sizes) > LARGEST_TABLE:
        raise ValueError(
            f"codebook_size is {max(sizes)} in {len(sizes)} codebook(s), too large to count code by code; "
            f"expected at most {LARGEST_TABLE} codes in total"
        )
    return tuple(sizes)


def new_slots(sizes: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Zero counts [num_codebooks, K + 3], where K is the largest size.

    The slots of a row are for indices below −1, for −1, for the K codes, and for indices of at least K.
    """
    with torch.inference_mode(False):
        return torch.zeros(len(sizes), max(sizes) + FIRST + 1, dtype=torch.int64, device=device)


def count_(slots: Tensor, columns: Sequence[Tensor]) -> None:
    """Add the indices in `columns`, one tensor per codebook or for the first codebooks only, to the counts."""
    width = slots.shape[1]
    low, high = -FIRST, width - 1 - FIRST
    positions = [
        column.reshape(-1).long().clamp(low, high) + (number * width + FIRST)
        for number, column in enumerate(columns)
    ]
    flat = torch.cat(positions)
    recomputing = is_recomputing(flat)
    slots.view(-1).scatter_add_(0, flat, choose(recomputing, torch.zeros_like(flat), torch.ones_like(flat)))
