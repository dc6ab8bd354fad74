"""The three smallest of many values with their labels, and the fourth value: a running state and its reduction.

A state is four values in ascending order, +inf where there is none, and the labels of the first three: tensors of
one shape.
"""

import triton
import triton.language as tl

_NO_LABEL = tl.constexpr(2**31 - 1)


@triton.jit
def empty_state(ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The state [ROWS, COLUMNS] before any value."""
    value = tl.full([ROWS, COLUMNS], float("inf"), tl.float32)
    label = tl.full([ROWS, COLUMNS], _NO_LABEL, tl.int32)
    return value, value, value, value, label, label, label


@triton.jit
def insert(best, second, third, fourth, best_label, second_label, third_label, value, label):
    """Add one labelled value to each element of the state. Of equal values, the first to come stays in front."""
    best, value, best_label, label = _in_order(best, value, best_label, label)
    second, value, second_label, label = _in_order(second, value, second_label, label)
    third, value, third_label, label = _in_order(third, value, third_label, label)
    return best, second, third, tl.minimum(fourth, value), best_label, second_label, third_label


@triton.jit
def combine_columns(best, second, third, fourth, best_label, second_label, third_label):
    """The state [ROWS] of all columns of a state [ROWS, COLUMNS] together.

    Of equal values, the one with the lowest label comes first.
    """
    value_1, label_1, taken = _lowest(best, best_label)
    # The column that gave the smallest value moves up by one, and again after the next.
    best, best_label = tl.where(taken, second, best), tl.where(taken, second_label, best_label)
    second, second_label = tl.where(taken, third, second), tl.where(taken, third_label, second_label)
    third = tl.where(taken, fourth, third)
    value_2, label_2, taken = _lowest(best, best_label)
    best, best_label = tl.where(taken, second, best), tl.where(taken, second_label, best_label)
    second = tl.where(taken, third, second)
    value_3, label_3, taken = _lowest(best, best_label)
    value_4 = tl.min(tl.where(taken, second, best), 1)
    return value_1, value_2, value_3, value_4, label_1, label_2, label_3


@triton.jit
def _in_order(kept, value, kept_label, label):
    """The smaller of two values, the larger, and their labels; of equal ones, `kept` first."""
    lower = value < kept
    smaller, larger = tl.minimum(kept, value), tl.maximum(kept, value)
    return smaller, larger, tl.where(lower, label, kept_label), tl.where(lower, kept_label, label)


@triton.jit
def _lowest(value, label):
    """Of each row the smallest value, its lowest label, and which element it is; labels differ unless missing."""
    smallest = tl.min(value, 1)
    label = tl.where(value == smallest[:, None], label, _NO_LABEL)
    lowest = tl.min(label, 1)
    return smallest, lowest, label == lowest[:, None]
