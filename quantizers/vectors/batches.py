"""Vectors in batches, from any object that can be iterated over again."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from torch import Tensor

from quantizers.core.arguments.checks import check_tensor, shown
from quantizers.vectors.base import Vectors
from quantizers.vectors.values import check_dim, check_dtype, check_shape, from_numpy, widened


class BatchedVectors(Vectors):
    """The rows of all batches [any number, dim], such as those of a DataLoader.

    A batch is a tensor, an array, or a tuple or list that begins with one. Every pass must give the same vectors
    in the same order: switch off shuffling. The first batch is read at once, to find the number of channels.

    Raises: TypeError for an iterator, and for batches that are not tensors or arrays of floats; ValueError for
    no batches, and for batches of another shape or of different widths.
    """

    count: int | None = None

    def __init__(self, batches: Iterable[Any]) -> None:
        iterator = iter(batches)
        if iterator is batches:
            raise TypeError(
                f"data is {shown(batches)}, which can be read only once, but the vectors are read several times; "
                "pass a list of batches, or an object whose __iter__ begins again"
            )
        self.name = f"the {type(batches).__name__}"
        self._batches = batches
        for batch in iterator:
            first = _values(f"batch 0 of {self.name}", batch)
            break
        else:
            raise ValueError(f"{self.name} has no batches, expected at least one")
        self.dim, self._dtype = first.shape[1], first.dtype

    def _pieces(self, rows: int) -> Iterator[Tensor]:
        for number, batch in enumerate(self._batches):
            name = f"batch {number} of {self.name}"
            values = _values(name, batch)
            check_dim(name, values.shape[1], self.dim)
            if values.dtype != self._dtype:
                raise TypeError(
                    f"{name} has values of {values.dtype}, expected {self._dtype} as in the first batch"
                )
            yield values.clone()  # the source may use the memory again for its next batch


def _values(name: str, batch: Any) -> Tensor:
    values = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if isinstance(values, np.ndarray):
        check_shape(name, values.shape)
        check_dtype(name, values.dtype)
        return from_numpy(values)
    if not isinstance(values, Tensor):
        raise TypeError(
            f"{name} is {shown(batch)}, expected a tensor, an array, or a tuple or list that begins with one"
        )
    check_tensor(name, values)
    check_shape(name, tuple(values.shape))
    return widened(name, values.detach())
