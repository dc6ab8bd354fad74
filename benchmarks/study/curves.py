"""Errors over the training, thinned to what a picture shows, and the step at which one reaches another."""

import numpy as np

WINDOW = 100  # steps: their batches' differing difficulty is a few percent of their mean error


def window_of(steps: int) -> int:
    """WINDOW, or a tenth of a short training."""
    return max(1, min(WINDOW, steps // 10))


def smooth(mse: np.ndarray) -> np.ndarray:
    """Means over a window, float64 [steps − window + 1]; the i-th, from 0, ends with step i + window, from 1."""
    window = window_of(len(mse))
    return np.convolve(mse.astype(np.float64), np.full(window, 1 / window), mode="valid")


def thinned(mse: np.ndarray) -> dict[str, list[float]]:
    """Steps and means, two in every window, for a picture."""
    means, window = smooth(mse), window_of(len(mse))
    places = range(0, len(means), max(1, window // 2))
    return {"steps": [place + window for place in places], "mse": [float(means[place]) for place in places]}


def steps_to(mse: np.ndarray, other: np.ndarray) -> int | None:
    """The first step at which the mean over a window is at or below that which `other` ends with, or None."""
    below = np.flatnonzero(smooth(mse) <= smooth(other)[-1])
    return int(below[0]) + window_of(len(mse)) if len(below) else None
