"""The two smallest of many values with their labels, and the third value: a running state and its reduction.

A state is a tuple (best, second, third, best_label, second_label) of tensors of one shape: three values in
ascending order, +inf where there is none, and the labels of the first two.
"""

import triton
import triton.language as tl

_NO_LABEL = tl.constexpr(2**31 - 1)


@triton.jit
def empty_state(ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The state [ROWS, COLUMNS] before any value."""
    value = tl.full([ROWS, COLUMNS], float("inf"), tl.float32)
    label = tl.full([ROWS, COLUMNS], _NO_LABEL, tl.int32)
    return value, value, value, label, label


@triton.jit
def insert(best, second, third, best_label, second_label, value, label):
    """Add one labelled value to each element of the state. Of equal values, the first to come stays in front."""
    lower = value < best
    other = tl.maximum(best, value)
    other_label = tl.where(lower, best_label, label)
    best_label = tl.where(lower, label, best_label)
    best = tl.minimum(best, value)
    second_label = tl.where(other < second, other_label, second_label)
    third = tl.minimum(third, tl.maximum(second, other))
    second = tl.minimum(second, other)
    return best, second, third, best_label, second_label


@triton.jit
def combine_columns(best, second, third, best_label, second_label):
    """The state [ROWS] of all columns of a state [ROWS, COLUMNS] together.

    Of equal values, the one with the lowest label comes first.
    """
    smallest, label, taken = _lowest(best, best_label)
    # The column that gave the smallest value moves up by one.
    best = tl.where(taken, second, best)
    best_label = tl.where(taken, second_label, best_label)
    second = tl.where(taken, third, second)
    next_smallest, next_label, taken = _lowest(best, best_label)
    return smallest, next_smallest, tl.min(tl.where(taken, second, best), 1), label, next_label


@triton.jit
def _lowest(value, label):
    """Of each row the smallest value, its lowest label, and which element it is; labels differ unless missing."""
    smallest = tl.min(value, 1)
    label = tl.where(value == smallest[:, None], label, _NO_LABEL)
    lowest = tl.min(label, 1)
    return smallest, lowest, label == lowest[:, None]
