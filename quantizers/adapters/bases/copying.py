"""Copying trained codes into a quantizer, and checks that it can take them."""

from collections.abc import Sequence

from torch import Tensor

from quantizers.codebooks.ema import EMAVectorQuantizer
from quantizers.composite.residual import ResidualQuantizer
from quantizers.core.base import Quantizer


def set_codebook(quantizer: Quantizer, codes: Tensor) -> None:
    """Set a quantizer's codes [K, code_dim].

    Raises: ValueError if its codes cannot be set, or if it does not choose the nearest code.
    """
    quantizer = quantizer.evaluated
    if quantizer._index_rule.get("choice", "nearest") != "nearest":
        raise ValueError(
            f"{type(quantizer).__name__} does not choose the nearest code, so it would give other indices with "
            "the same codes; expected one of 'vq', 'ema_vq', 'rotation_vq', 'simvq' or 'gumbel' with "
            "logits='distance'"
        )
    setter = getattr(quantizer, "set_codebook", None)
    if setter is None:
        raise ValueError(
            f"{type(quantizer).__name__} cannot keep a codebook, because its codes cannot be set one by one; "
            "expected one of 'vq', 'ema_vq', 'rotation_vq', 'simvq' or another with a method set_codebook"
        )
    setter(codes)


def set_averages(quantizer: Quantizer, cluster_size: Tensor, embedding_sum: Tensor) -> None:
    """Set the moving averages N [K] and m [K, code_dim] of a quantizer that has them.

    If the original has seen no vector yet, each code counts as one vector.
    """
    quantizer = quantizer.evaluated
    if isinstance(quantizer, EMAVectorQuantizer) and cluster_size.any():
        quantizer.set_averages(cluster_size, embedding_sum)


def stages_of(quantizer: Quantizer, count: int, *, shared: bool = False) -> Sequence[Quantizer]:
    """The stages of a residual quantizer, after a check that they can take the codes of `count` stages.

    Args:
        shared: whether the `count` stages share one codebook.

    Raises: ValueError if they cannot.
    """
    residual = as_residual(
        quantizer.evaluated,
        f"quantizer is {type(quantizer).__name__}, which cannot keep the codebooks of stages; expected a "
        "ResidualQuantizer",
    )
    if len(residual.stages) != count:
        raise ValueError(
            f"quantizer has {len(residual.stages)} stages; expected {count}, one for each codebook to keep"
        )
    if residual.entry is not None or residual.log_scales is not None:
        raise ValueError(
            "quantizer scales or bounds the input of its stages, which does not fit the codes to keep; expected a "
            "ResidualQuantizer without scales and entry"
        )
    _check_distinct(residual.stages, count, shared)
    return residual.stages


def groups_of(quantizer: Quantizer, count: int, *, shared: bool = False) -> Sequence[Quantizer]:
    """The groups of a grouped quantizer, after a check that they can take the codes of `count` groups.

    Args:
        shared: whether the `count` groups share one codebook.

    Raises: ValueError if they cannot.
    """
    if len(quantizer.groups) != count:
        raise ValueError(
            f"quantizer is {type(quantizer).__name__} with {quantizer.num_codebooks} codebooks; expected a "
            f"GroupedQuantizer of {count} groups, to keep their codes"
        )
    _check_distinct(quantizer.groups, count, shared)
    return quantizer.groups


def as_residual(quantizer: Quantizer, error: str) -> ResidualQuantizer:
    """The quantizer, if it is a ResidualQuantizer. Raises: ValueError with the text `error` if it is not."""
    if not isinstance(quantizer, ResidualQuantizer):
        raise ValueError(error)
    return quantizer


def _check_distinct(quantizers: Sequence[Quantizer], count: int, shared: bool) -> None:
    if len(set(quantizers)) not in (1 if shared else count, count):
        raise ValueError(f"quantizer shares its codebook; expected {count} codebooks, to keep different codes")
