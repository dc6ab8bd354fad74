"""A bounded sample of the vectors that reach a quantizer."""

import torch
from torch import Tensor

from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows, to_rows
from quantizers.core.map_quantizer import MapQuantizer
from quantizers.kernels.common.wide import wide_device


class VectorSample:
    """A uniform sample of at most `limit` vectors, without replacement, from any number of batches.

    For a quantizer of maps, whole maps are sampled, at least one, with at most `limit` vectors in total.
    """

    def __init__(self, quantizer: Quantizer, limit: int) -> None:
        self._quantizer = quantizer
        self._axes = quantizer.evaluated.axes if isinstance(quantizer.evaluated, MapQuantizer) else 0
        self._limit = limit
        self._size = torch.Size()  # of a map
        # Keys [n], vectors [n, positions, dim] and valid [n, positions], with one position per vector or map cell.
        self._sampled: tuple[Tensor, ...] = ()

    def add(self, x: Tensor, mask: Tensor | None) -> None:
        """Include the vectors of one forward in the draw.

        Args: x, mask: the arguments of the quantizer's forward.

        Raises: ValueError for maps of another size than before.
        """
        rows = to_rows(x, mask, self._quantizer.dim, self._quantizer.channel_dim)
        size = torch.Size()
        if self._axes:
            size = rows.shape[-self._axes :]
        else:
            rows = rows._replace(vectors=rows.vectors[rows.valid], valid=rows.valid[rows.valid])
        if self._sampled and size != self._size:
            raise ValueError(
                f"maps have sizes {tuple(self._size)} and {tuple(size)}, expected one size in all batches"
            )
        positions, self._size = size.numel(), size
        vectors, valid = rows.vectors.reshape(-1, positions, rows.vectors.shape[1]), rows.valid.view(-1, positions)
        # The vectors with the smallest of independent keys are a uniform sample, however many will follow.
        keys = torch.rand(len(valid), dtype=torch.float64, device=wide_device(valid.device))
        new = (keys, vectors, valid)
        sampled = tuple(map(torch.cat, zip(self._sampled, new, strict=True))) if self._sampled else new
        count = max(1, self._limit // max(1, positions))
        if len(sampled[0]) > count:
            chosen = sampled[0].topk(count, largest=False).indices.sort().values
            sampled = tuple(tensor[chosen] for tensor in sampled)
        self._sampled = sampled

    def rows(self) -> Rows:
        """The sample as rows, in the order in which the vectors came."""
        _, vectors, valid = self._sampled
        shape = torch.Size((len(valid), *self._size))
        return Rows(vectors.reshape(-1, vectors.shape[-1]), valid.reshape(-1), shape)
