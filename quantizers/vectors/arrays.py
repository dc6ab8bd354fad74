"""Vectors in memory: tensors on any device, and arrays."""

from typing import Any

import numpy as np
from torch import Tensor

from quantizers.core.arguments.checks import check_tensor
from quantizers.vectors.base import IndexedVectors, check_positions
from quantizers.vectors.values import check_dtype, check_shape, check_some, from_numpy, widened


class TensorVectors(IndexedVectors):
    """The rows of a tensor [count, dim]; blocks stay on its device.

    Raises: TypeError for a dtype other than a float; ValueError for another shape, no rows, or no channels.
    """

    name = "the tensor"

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = check_tensor("data", tensor).detach()
        self.count, self.dim = check_shape(self.name, tuple(tensor.shape))
        check_some(self.name, self.count)
        widened(self.name, self._tensor[:0])

    def read(self, start: int, stop: int) -> Tensor:
        return widened(self.name, self._tensor[start:stop])

    def take(self, positions: Tensor) -> Tensor:
        positions = check_positions(self, positions)
        return widened(self.name, self._tensor[positions.to(self._tensor.device)])


class ArrayVectors(IndexedVectors):
    """The rows of an array [count, dim] in memory. Raises: as TensorVectors."""

    name = "the array"

    def __init__(self, array: "np.ndarray[Any, Any]") -> None:
        self._array = np.asarray(array)
        check_dtype(self.name, array.dtype)
        self.count, self.dim = check_shape(self.name, array.shape)
        check_some(self.name, self.count)

    def read(self, start: int, stop: int) -> Tensor:
        return from_numpy(self._array[start:stop])

    def take(self, positions: Tensor) -> Tensor:
        return from_numpy(self._array[check_positions(self, positions).numpy()])
