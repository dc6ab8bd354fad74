"""Vectors in code space: what a quantizer, or each stage of a residual one, looks up codes for, and those codes.

A stage's latent is its input (the residual, behind `entry` and divided by `scales`), projected to code_dim; its
code is the one before the projection out and the scales. Those of several stages stand one after another on the
channel axis, Σ code_dim channels. Of a quantizer without stages, also of one with several codebooks, the latent is
the one vector that all its indices come from.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from quantizers.composite.composed import all_valid, joined
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows, from_rows, to_rows
from quantizers.core.output import NO_CODE
from quantizers.core.requests import Request
from quantizers.kernels.dispatch import without_autocast


def latents_of(quantizer: Quantizer, x: Tensor, indices: Tensor) -> Tensor:
    """What codes were looked up for, [..., Σ code_dim] on x's channel axis; NaN where x is not finite.

    A residual is what the codes of now leave: where a forward in training has moved averages, those after it.
    Behind a stage that dropout left out it stays what it was.

    Args:
        x: as of forward. indices: those that it was given, perhaps of the first codebooks alone.

    Raises: ValueError or TypeError where x does not fit.
    """
    rows = to_rows(x, None, quantizer.dim, quantizer.channel_dim)
    with without_autocast(x.device):
        projected = [
            _ask(part, type(part)._project_in, met).vectors
            for part, met in _stage_inputs(quantizer, rows, indices)
        ]
        latents = torch.cat(projected, -1).where(rows.valid[:, None], torch.nan).to(x.dtype)
    return from_rows(latents, rows.shape, quantizer.channel_dim)


def latent_codes(quantizer: Quantizer, indices: Tensor) -> Tensor:
    """The codes of indices, [..., Σ code_dim] on the quantizer's channel axis; zero for index −1.

    Raises: as `Quantizer.decode`.
    """
    indices = quantizer._check_indices(indices)
    flat, shape = (
        (_flat(indices), indices.shape[:-1]) if quantizer.composed else (indices.reshape(-1), indices.shape)
    )
    columns = _columns(quantizer, flat)
    with without_autocast(indices.device):
        pairs = zip(quantizer.stages, columns, strict=False)
        codes = torch.cat([_codes(part, column) for part, column in pairs], -1)
    return from_rows(codes, shape, quantizer.channel_dim)


@torch.no_grad()
def encode_latents(quantizer: Quantizer, latents: Tensor) -> Tensor:
    """The indices of latents, each stage's by itself: [...], or [..., codebooks]; −1 where one is not finite.

    Args: latents: [..., Σ code_dim] of the first stages, with channels on the quantizer's channel axis.

    Raises: ValueError for channels that no first stages have together.
    """
    channels = latents.shape[quantizer.channel_dim]
    parts = _with_channels(quantizer, channels)
    rows = to_rows(latents, None, channels, quantizer.channel_dim)
    with without_autocast(latents.device):
        vectors = torch.split(rows.vectors, [part.code_dim for part in parts], -1)
        columns = [_ask(part, type(part)._encode, own) for part, own in zip(parts, vectors, strict=True)]
    indices = joined(columns) if quantizer.composed else columns[0]
    return quantizer._reshape_indices(quantizer._mark_missing(indices, rows.valid), rows.shape)


def _stage_inputs(quantizer: Quantizer, rows: Rows, indices: Tensor) -> list[tuple[Quantizer, Rows]]:
    """Each part with the vectors that it got."""
    if not quantizer.truncatable:
        return [(quantizer, rows)]
    staged: Any = quantizer
    inputs = staged._component_inputs(staged._project_in(rows), _flat(indices))
    return [(stage, all_valid(vectors)) for stage, vectors, _ in inputs]


def _columns(quantizer: Any, indices: Tensor) -> Sequence[Tensor]:
    """Indices of each stage."""
    columns: Sequence[Tensor] = quantizer._columns(indices) if quantizer.truncatable else [indices]
    return columns


def _codes(part: Any, column: Tensor) -> Tensor:
    """[N, code_dim] of indices [N], or [N, codebooks]."""
    has_code = column != NO_CODE
    codes: Tensor = _ask(part, type(part)._decode, column.where(has_code, part._missing_index))
    return codes.where((has_code.any(-1) if part.composed else has_code)[:, None], 0.0)


def _ask(part: Quantizer, method: Callable[..., Any], *arguments: Any) -> Any:
    """What a method of a part returns, by way of a call of the part: what brings its weights there sees it."""
    return part(Request(method, arguments, {}))


def _with_channels(quantizer: Quantizer, channels: int) -> Sequence[Any]:
    """The first parts, whose codes have that many channels together."""
    parts = quantizer.stages
    counts = list(accumulate(part.code_dim for part in parts))
    if channels not in counts:
        raise ValueError(f"latents have {channels} channels, expected one of {counts}, those of the first stages")
    return parts[: counts.index(channels) + 1]


def _flat(indices: Tensor) -> Tensor:
    return indices.reshape(-1, indices.shape[-1])
