"""Latents: the vectors in code space that a quantizer, or each stage of a residual one, looks up codes for.

A stage's latent is its input (the residual, after `entry` and divided by `scales`), projected to code_dim; its
code is taken before the projection out and the scales. The latents of several stages lie side by side on the
channel axis, Σ code_dim channels. A quantizer without stages, even one with several codebooks, has one latent,
from which all its indices come.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from quantizers.composite.composed import all_valid, joined
from quantizers.composite.residual import ResidualQuantizer
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows, from_rows, to_rows
from quantizers.core.method_calls import MethodCall
from quantizers.core.output import NO_CODE
from quantizers.kernels.common.compat import nan
from quantizers.kernels.common.dispatch import without_autocast


def latents_of(quantizer: Quantizer, x: Tensor, indices: Tensor) -> Tensor:
    """The latents that codes were looked up for, [..., Σ code_dim] on x's channel axis; NaN where x is not finite.

    Residuals are computed from the current codes: if a forward in training has moved averages, from the codes
    after it. After a stage that dropout left out the residual is unchanged.

    Args:
        x: the input of a forward.
        indices: the indices that the forward gave x, of all codebooks or only the first.

    Raises: ValueError or TypeError where x does not fit.
    """
    rows = to_rows(x, None, quantizer.dim, quantizer.channel_dim)
    with without_autocast(x.device):
        projected = [
            _call(stage, "_project_in", inputs).vectors
            for stage, inputs in _stage_inputs(quantizer.evaluated, rows, indices)
        ]
        latents = torch.cat(projected, -1).where(rows.valid[:, None], nan(x)).to(x.dtype)
    return from_rows(latents, rows.shape, quantizer.channel_dim)


def latent_codes(quantizer: Quantizer, indices: Tensor) -> Tensor:
    """The codes of indices, [..., Σ code_dim] on the quantizer's channel axis; zero for index −1.

    Raises: as `Quantizer.decode`.
    """
    indices = quantizer._check_indices(indices)
    flat, shape = (
        (_flat(indices), indices.shape[:-1]) if quantizer.composed else (indices.reshape(-1), indices.shape)
    )
    columns = _columns(quantizer.evaluated, flat)
    with without_autocast(indices.device):
        pairs = zip(_stages(quantizer), columns, strict=False)
        codes = torch.cat([_codes(stage, column) for stage, column in pairs], -1)
    return from_rows(codes, shape, quantizer.channel_dim)


@torch.no_grad()
def encode_latents(quantizer: Quantizer, latents: Tensor) -> Tensor:
    """The indices of latents, for each stage independently: [...] or [..., codebooks]; −1 if one is not finite.

    Args: latents: [..., Σ code_dim] of the first stages, with channels on the quantizer's channel axis.

    Raises: ValueError unless the first stages together have that many channels, for some number of stages.
    """
    channels = latents.shape[quantizer.channel_dim]
    stages = _stages_with_channels(quantizer, channels)
    rows = to_rows(latents, None, channels, quantizer.channel_dim)
    with without_autocast(latents.device):
        vectors = torch.split(rows.vectors, [stage.code_dim for stage in stages], -1)
        columns = [_call(stage, "_encode", own) for stage, own in zip(stages, vectors, strict=True)]
    indices = joined(columns) if quantizer.composed else columns[0]
    return quantizer._reshape_indices(quantizer._mark_missing(indices, rows.valid), rows.shape)


def _stage_inputs(quantizer: Quantizer, rows: Rows, indices: Tensor) -> list[tuple[Quantizer, Rows]]:
    """Each stage with the vectors that it got."""
    if not isinstance(quantizer, ResidualQuantizer):
        return [(quantizer, rows)]
    inputs = quantizer._component_inputs(quantizer._project_in(rows), _flat(indices))
    return [(stage.evaluated, all_valid(vectors)) for stage, vectors, _ in inputs]


def _columns(quantizer: Quantizer, indices: Tensor) -> Sequence[Tensor]:
    """The indices of each stage."""
    return quantizer._columns(indices) if isinstance(quantizer, ResidualQuantizer) else [indices]


def _codes(stage: Any, column: Tensor) -> Tensor:
    """The codes [N, code_dim] of indices [N] or [N, codebooks]."""
    has_code = column != NO_CODE
    codes: Tensor = _call(stage, "_decode", column.where(has_code, stage._missing_index))
    return codes.where((has_code.any(-1) if stage.composed else has_code)[:, None], 0.0)


def _call(stage: Quantizer, method: str, *arguments: Any) -> Any:
    """Call a method of a stage through a call of the module, so that hooks that bring its weights run."""
    return stage(MethodCall(method, arguments, {}))


def _stages(quantizer: Quantizer) -> Sequence[Any]:
    return [stage.evaluated for stage in quantizer.stages]


def _stages_with_channels(quantizer: Quantizer, channels: int) -> Sequence[Any]:
    """The first stages whose codes together have that many channels."""
    stages = _stages(quantizer)
    counts = list(accumulate([stage.code_dim for stage in stages]))
    if channels not in counts:
        raise ValueError(f"latents have {channels} channels, expected one of {counts}, by the number of stages")
    return stages[: counts.index(channels) + 1]


def _flat(indices: Tensor) -> Tensor:
    return indices.reshape(-1, indices.shape[-1])
