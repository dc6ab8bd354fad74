"""What the quantizers of NeMo's audio codecs have in common: lengths instead of masks, and codebooks first."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.adapter import Adapter
from quantizers.core.output import NO_CODE, QuantizerOutput


class NemoAdapter(Adapter):
    """Follows the calls of NeMo's AudioCodecModel, which names its arguments.

    encode(inputs [B, D, T], input_len [B]) → indices [N, B, T]; decode(indices, input_len) → [B, D, T].

    A sample's positions from `input_len` on do not count. Their vectors and their indices are 0, as in the
    original; `decode` gives zero there whatever the index. Without lengths all positions count.
    """

    channel_dim: ClassVar[int] = 1
    omitted_methods: ClassVar[tuple[str, ...]] = (
        "as_frozen",
        "freeze",
        "from_config_dict",
        "from_config_file",
        "input_example",
        "restore_from",
        "save_to",
        "to_config_dict",
        "to_config_file",
        "unfreeze",
    )
    """The methods of every module of NeMo. Models call them of themselves only."""

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """The calls that models make, each with its result; the second sample is the shorter one."""
        lengths = torch.tensor([z.shape[-1], z.shape[-1] - 3], device=z.device)
        quantized, indices, *loss = module(inputs=z, input_len=lengths)
        yield "forward", (quantized, indices, *map(torch.as_tensor, loss))  # a number in evaluation
        yield "encode", module.encode(inputs=z, input_len=lengths)
        yield "decode", module.decode(indices=indices, input_len=lengths)

    def encode(self, inputs: Tensor, input_len: Tensor | None = None) -> Tensor:
        """Indices [N, B, T] of inputs [B, D, T], those of evaluation in either mode."""
        mask = _mask(inputs.shape[-1], input_len)
        return self._codebooks_first(self.quantizer.encode(inputs, mask), mask)

    def decode(self, indices: Tensor, input_len: Tensor | None = None) -> Tensor:
        """Vectors [B, D, T] of indices [N, B, T].

        Raises: ValueError for another number of codebooks; as `Quantizer.decode`.
        """
        codebooks = self.quantizer.num_codebooks
        if indices.shape[0] != codebooks and not self.quantizer.truncatable:
            raise ValueError(
                f"indices have shape {tuple(indices.shape)}, expected {codebooks} on the first axis, the number "
                "of codebooks"
            )
        columns, mask = indices.movedim(0, -1), _mask(indices.shape[-1], input_len)
        if mask is not None:
            columns = columns.where(mask[..., None], NO_CODE)
        return self._decode_indices(columns if self.quantizer.composed else columns[..., 0])

    def _quantize_lengths(self, inputs: Tensor, input_len: Tensor | None) -> QuantizerOutput:
        """The quantizer's forward, with indices [N, B, T]."""
        mask = _mask(inputs.shape[-1], input_len)
        output: QuantizerOutput = self.quantizer(inputs, mask)
        return QuantizerOutput(output.quantized, self._codebooks_first(output.indices, mask), output.loss)

    def _codebooks_first(self, indices: Tensor, mask: Tensor | None) -> Tensor:
        """Indices [N, B, T] of the quantizer's, with 0 where the mask is False."""
        columns = indices if self.quantizer.composed else indices[..., None]
        return (columns if mask is None else columns.where(mask[..., None], 0)).movedim(-1, 0)

    @property
    def num_codebooks(self) -> int:
        """N."""
        return self.quantizer.num_codebooks

    @property
    def codebook_size(self) -> int:
        """K, the new quantizer's codebook size."""
        return self.quantizer.codebook_size

    @property
    def codebook_dim(self) -> int:
        """D, the number of channels of inputs."""
        return self.quantizer.dim

    @property
    def input_types(self) -> Any:
        """The original's neural types."""
        return self.original.input_types

    @property
    def output_types(self) -> Any:
        """The original's neural types, by which models know whether there is a loss."""
        return self.original.output_types


def _mask(length: int, input_len: Tensor | None) -> Tensor | None:
    """Which positions count, bool [B, length], for lengths [B]; None if all do."""
    if input_len is None:
        return None
    return torch.arange(length, device=input_len.device) < input_len[:, None]
