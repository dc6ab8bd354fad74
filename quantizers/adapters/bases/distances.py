"""The distance by which a quantizer chooses codes, and a check of it before codes are copied."""

from quantizers.core.base import Quantizer


def distance_of(quantizer: Quantizer) -> str:
    """How a quantizer compares vectors and codes, a value of the option `distance` of codebooks."""
    return getattr(quantizer, "distance", "euclidean")


def check_distance(quantizer: Quantizer, distance: str) -> None:
    """Check that a quantizer compares vectors and codes as the original does.

    Args: distance: the original's, a value of the option `distance` of codebooks.

    Raises: ValueError if it compares them in another way, and so would choose other codes.
    """
    own = distance_of(quantizer.evaluated)
    if own != distance:
        raise ValueError(
            f"{type(quantizer).__name__} has distance={own!r}, but the codes to keep are chosen by "
            f"distance={distance!r}; expected one of 'vq', 'ema_vq', 'rotation_vq', 'simvq' or another with that "
            "distance"
        )
