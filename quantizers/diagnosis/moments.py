"""Mean and spread of vectors that come in batches, and a uniform sample of them."""

import math

import torch
from torch import Tensor

from quantizers.kernels.common.wide import wide

SAMPLE = 4096
"""Vectors that are kept of each codebook, for principal axes and pictures."""


class Moments:
    """The count, the mean, the spread and the norm of vectors [n, D], in float64.

    Sums are of differences from a first vector, so that a large mean costs no digits.
    """

    def __init__(self) -> None:
        self.count = 0
        self._origin: Tensor | None = None
        self._sum: Tensor | float = 0.0
        self._squares = 0.0

    def add(self, vectors: Tensor) -> None:
        """Include vectors [n, D]."""
        if not len(vectors):
            return
        values = wide(vectors)
        if self._origin is None:
            self._origin = values.mean(0)
        values = values - self._origin
        self.count += len(values)
        self._sum = self._sum + values.sum(0)
        self._squares += float(values.square().sum())

    @property
    def mean(self) -> Tensor:
        """[D], float64."""
        assert self._origin is not None
        return self._origin + self._sum / self.count

    @property
    def variance(self) -> float:
        """The mean squared distance from the mean: the sum of the variances of all channels."""
        moved = float(torch.as_tensor(self._sum / max(self.count, 1)).square().sum())
        return max(0.0, self._squares / max(self.count, 1) - moved)

    @property
    def spread(self) -> float:
        """The root of the variance."""
        return math.sqrt(self.variance)

    @property
    def norm(self) -> float:
        """The root mean square of the norms."""
        return math.sqrt(self.variance + float(self.mean.square().sum())) if self.count else 0.0


class Sample:
    """A uniform sample of at most `SAMPLE` rows of tensors [..., n, D] side by side, float32 on the CPU."""

    def __init__(self) -> None:
        self._generator = torch.Generator("cpu").manual_seed(0)
        self._keys = torch.zeros(0, dtype=torch.float64, device="cpu")
        self._kept: list[Tensor] = []

    def add(self, *tensors: Tensor) -> None:
        """Include the rows, axis −2, of tensors that have as many of them."""
        count = tensors[0].shape[-2]
        keys = torch.rand(count, dtype=torch.float64, device="cpu", generator=self._generator)
        every = torch.cat([self._keys, keys])
        chosen = every.topk(min(SAMPLE, len(every)), largest=False).indices.sort().values
        old, new = chosen[chosen < len(self._keys)], chosen[chosen >= len(self._keys)] - len(self._keys)
        fresh = [tensor.detach().index_select(-2, new.to(tensor.device)).float().cpu() for tensor in tensors]
        if self._kept:
            fresh = [
                torch.cat([kept.index_select(-2, old), each], -2)
                for kept, each in zip(self._kept, fresh, strict=True)
            ]
        self._keys, self._kept = every[chosen], fresh

    def tensors(self) -> list[Tensor]:
        """The sampled rows of each tensor, in the order in which they came."""
        return self._kept
