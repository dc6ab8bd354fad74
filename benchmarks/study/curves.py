"""Errors over the course of training, thinned out for plots, and the step at which one curve reaches another."""

import numpy as np

WINDOW = 100  # steps: differences in difficulty between batches are a few percent of a window's mean error


def window_of(steps: int) -> int:
    """Return WINDOW, or a tenth of a short training."""
    return max(1, min(WINDOW, steps // 10))


def smooth(mse: np.ndarray) -> np.ndarray:
    """Return means over a window, float64 [steps − window + 1]. Mean i, from 0, ends with step i + window, from
    1."""
    window = window_of(len(mse))
    return np.convolve(mse.astype(np.float64), np.full(window, 1 / window), mode="valid")


def thinned(mse: np.ndarray) -> dict[str, list[float]]:
    """Return steps and means for a plot, two per window."""
    means, window = smooth(mse), window_of(len(mse))
    starts = range(0, len(means), max(1, window // 2))
    return {"steps": [start + window for start in starts], "mse": [float(means[start]) for start in starts]}


def steps_to(mse: np.ndarray, other: np.ndarray) -> int | None:
    """Return the first step whose window mean is at most the final window mean of `other`; None if there is
    none."""
    below = np.flatnonzero(smooth(mse) <= smooth(other)[-1])
    return int(below[0]) + window_of(len(mse)) if len(below) else None
