"""Quantizers that treat each vector by itself."""

import abc
from typing import Any

import torch
from torch import Tensor

from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows, from_rows
from quantizers.core.method_calls import MethodCall, through_forward
from quantizers.core.output import NO_CODE, QuantizerOutput
from quantizers.core.state.half_state import widened
from quantizers.kernels.common.compat import nan
from quantizers.kernels.common.dispatch import without_autocast


class RowQuantizer(Quantizer):
    """A quantizer of single vectors; it can be a component of another quantizer.

    A subclass defines `_quantize`, `_encode`, `_decode` and `codebook`, all on rows in code space. One with
    several codebooks sets `composed`, and `num_codebooks` in its constructor: its indices are [N, num_codebooks]
    everywhere, and −1 in a column means that this codebook contributes nothing.
    """

    @abc.abstractmethod
    def _encode(self, z: Tensor) -> Tensor:
        """The indices [N] that evaluation gives for z [N, code_dim]."""

    @abc.abstractmethod
    def _decode(self, indices: Tensor) -> Tensor:
        """Codes [N, code_dim] of indices [N], all within [0, K); with several codebooks also −1."""

    def encode_rows(self, rows: Rows) -> Tensor:
        """`encode` for rows [N, dim], called by quantizers that contain this one."""
        projected = self._project_in(rows)
        return self._mark_missing(self._encode(projected.vectors), projected.valid)

    @through_forward
    def decode(self, indices: Tensor) -> Tensor:
        """See `Quantizer.decode`."""
        indices = self._check_indices(indices)
        shape = indices.shape[:-1] if self.composed else indices.shape
        with without_autocast(indices.device):
            vectors = self.decode_rows(indices.reshape((-1, *indices.shape[len(shape) :])))
        return from_rows(vectors, shape, self.channel_dim)

    def decode_rows(self, indices: Tensor) -> Tensor:
        """`decode` for rows [N] or [N, num_codebooks] of indices: [N, dim]."""
        self._check_device("indices", indices)
        has_code = (indices >= 0) & (indices <= self.codebook_size - 1)
        is_known = has_code | (indices == NO_CODE)
        codes = widened(self._decode(indices.where(has_code, self._missing_index)))
        codes = self._project(self.project_out, codes)
        if self.composed:
            has_code, is_known = has_code.any(-1), is_known.all(-1)
        fill = torch.where(is_known, 0.0, nan(codes))
        return codes.where((has_code & is_known)[:, None], fill[:, None])

    def quantize_rows(self, rows: Rows) -> QuantizerOutput:
        """`forward` for rows [N, dim]; no state changes. Rows that are not valid get index −1 and NaN."""
        return self._quantize_projected(rows, self._quantize)

    def nested_quantize(self, rows: Rows) -> QuantizerOutput:
        """`quantize_rows` through a call of this module, so that its hooks run; for quantizers that contain it."""
        output: QuantizerOutput = self(MethodCall("quantize_rows", (rows,), {}))
        return output

    def nested_encode(self, rows: Rows) -> Tensor:
        """`encode_rows` through `forward`, for quantizers that contain this one."""
        return self._through_forward("encode_rows", rows)

    def nested_decode(self, indices: Tensor) -> Tensor:
        """`decode_rows` through `forward`, for quantizers that contain this one."""
        return self._through_forward("decode_rows", indices)

    def _through_forward(self, method: str, argument: Any) -> Tensor:
        forward: Any = self.forward
        result: Tensor = forward(MethodCall(method, (argument,), {}))
        return result
