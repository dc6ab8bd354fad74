"""Exact arithmetic on the values of tensors, to judge rounded results by."""

from fractions import Fraction

from torch import Tensor


def exact(vectors: Tensor) -> list[list[Fraction]]:
    """The rows of [N, D] as fractions."""
    return [[Fraction(value) for value in row] for row in vectors.double().tolist()]


def squared_distances(x: Tensor, codebook: Tensor) -> list[list[Fraction]]:
    """‖x_n − e_k‖² without any rounding, N lists of K."""
    codes = exact(codebook)
    return [
        [sum(((a - b) ** 2 for a, b in zip(row, code, strict=True)), Fraction()) for code in codes]
        for row in exact(x)
    ]


def assert_nearest(indices: Tensor, x: Tensor, codebook: Tensor) -> None:
    """Each index is the lowest among the nearest codes, up to the rounding that `nearest_code` states.

    Its distance may exceed the smallest by a relative (2D + 16)·2⁻⁵³, twice that in the square; a code that is
    exactly as near must not stand before it.
    """
    slack = 1 + Fraction(2 * x.shape[1] + 16, 2**52)
    for index, distances in zip(indices.tolist(), squared_distances(x, codebook), strict=True):
        assert distances[index] <= min(distances) * slack
        assert all(distance > distances[index] for distance in distances[:index])


def assert_k_nearest(indices: Tensor, x: Tensor, codebook: Tensor) -> None:
    """Each index is that of `assert_nearest` without the codes before it in its row."""
    slack = 1 + Fraction(2 * x.shape[1] + 16, 2**52)
    for row, distances in zip(indices.tolist(), squared_distances(x, codebook), strict=True):
        left = dict(enumerate(distances))
        for index in row:
            chosen = left[index]
            assert chosen <= min(left.values()) * slack
            assert all(distance > chosen for code, distance in left.items() if code < index)
            del left[index]
