"""Which distance makes a code the nearest."""

from typing import Literal, get_args

Distance = Literal["euclidean", "cosine", "angle"]


def check_distance(distance: str) -> None:
    """Raise ValueError unless `distance` is the name of a distance."""
    if distance not in get_args(Distance):
        raise ValueError(f"distance is {distance!r}, expected 'euclidean', 'cosine' or 'angle'")
