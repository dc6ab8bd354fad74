"""The finite scalar quantizers of NeMo's audio codecs, of one codebook and of groups."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.codebook_view import CodebookView
from quantizers.adapters.bases.copying import groups_of
from quantizers.adapters.bases.grid import check_grid, grid_codes
from quantizers.adapters.bases.last_loss import LastLossAdapter
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.audio.nemo import NemoAdapter
from quantizers.core.base import Quantizer

BOUND, MARGIN = "narrow", 1e-3


class NemoFSQAdapter(LastLossAdapter, NemoAdapter):
    """Replaces FiniteScalarQuantizer of NeMo (2.6; tested with a stand-in).

    (inputs [B, D, T], input_len=None) → (dequantized [B, D, T], indices [1, B, T]); encode and decode as in
    NemoAdapter.

    A quantizer of several codebooks has as many on the first axis of indices. Indices are int64; the original's
    are int32. The contract has no loss. To train a quantizer that has one, add the attribute `loss`, that of the
    last forward.

    A new "fsq" gets the original's levels. With `keep_codebook` it also gets the original's bound ("narrow"):
    codes and indices are then the original's, except where a channel is within rounding of the edge between two
    levels.

    Not supported: with `keep_codebook` another `eps` than 10⁻³; the functions of the grid alone, such as
    `codes_to_indices`, which models do not call.

    Source: Mentzer et al.: Finite Scalar Quantization: VQ-VAE Made Simple, 2023 (arXiv 2309.15505v1);
    `nemo/collections/tts/modules/audio_codec_modules.py`.
    """

    contract: ClassVar[str] = "nemo_fsq"
    classes: ClassVar[tuple[str, ...]] = ("FiniteScalarQuantizer",)
    reference: ClassVar[str] = "fsq"
    omitted_methods: ClassVar[tuple[str, ...]] = (
        *NemoAdapter.omitted_methods,
        "codes_to_indices",
        "codes_to_nonnegative",
        "compress",
        "inputs_to_codes",
        "nonnegative_to_codes",
        "round",
    )

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        _ = original.dim_base_index  # classes of this name in other packages lack it
        levels = _levels(original)
        return QuantizerSpec(
            len(levels),
            math.prod(levels),
            cls.channel_dim,
            options={"levels": levels},
            keep_codebook_options={"bound": BOUND},
        )

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """FSQ's grid, [K, D]."""
        return grid_codes(original.num_levels.flatten().long())

    @classmethod
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Check that the quantizer has the original's grid and bound. Raises: ValueError if it has not."""
        _check_grid(original, quantizer.evaluated)

    def forward(self, inputs: Tensor, input_len: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See the class."""
        quantized, indices, self.loss = self._quantize_lengths(inputs, input_len)
        return quantized, indices

    @property
    def dim(self) -> int:
        """D."""
        return self.quantizer.dim

    @property
    def codes(self) -> Tensor:
        """All vectors, [K, D]. Raises: ValueError if there are too many, or several codebooks."""
        return CodebookView(self.quantizer, self.dtype).weight

    @property
    def codebook(self) -> Tensor:
        """All vectors, as `codes`."""
        return self.codes


class NemoGroupedFSQAdapter(LastLossAdapter, NemoAdapter):
    """Replaces GroupFiniteScalarQuantizer of NeMo (2.6; tested with a stand-in).

    (inputs [B, D, T], input_len [B]) → (dequantized [B, D, T], indices [N, B, T]): "nemo_fsq" with N groups of
    D / N channels and a codebook for each.

    Source: `nemo/collections/tts/modules/audio_codec_modules.py`; see NemoFSQAdapter for the paper.
    """

    contract: ClassVar[str] = "nemo_fsq_grouped"
    classes: ClassVar[tuple[str, ...]] = ("GroupFiniteScalarQuantizer",)
    reference: ClassVar[str] = "fsq"

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        group, count = NemoFSQAdapter.read_spec(original.fsqs[0]), original.num_groups
        return group._replace(dim=group.dim * count, num_groups=count)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """The grids of the groups, [N, K, D / N]."""
        return torch.stack([NemoFSQAdapter.trained_codebook(grid) for grid in original.fsqs])

    @classmethod
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Check that the groups have the original's grids and bound. Raises: ValueError if they have not."""
        groups = groups_of(quantizer.evaluated, original.num_groups, shared=True)
        for grid, group in zip(original.fsqs, groups, strict=True):
            _check_grid(grid, group)

    def forward(self, inputs: Tensor, input_len: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See the class."""
        quantized, indices, self.loss = self._quantize_lengths(inputs, input_len)
        return quantized, indices

    @property
    def num_groups(self) -> int:
        """N, which models read as the number of codebooks."""
        return self.num_codebooks

    @property
    def codebook_size_per_group(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def codebook_size(self) -> int:
        """The number of vectors that all groups together have, Kᴺ."""
        size: int = self.codebook_size_per_group**self.num_groups
        return size

    @property
    def codebook_dim_per_group(self) -> int:
        """The number of channels for each codebook."""
        return self.quantizer.dim // self.num_groups


def _levels(original: Any) -> tuple[int, ...]:
    """The levels of the original's channels. Raises: ValueError on `meta`, where they have no values."""
    if original.num_levels.is_meta:
        raise ValueError(
            f"{type(original).__name__} is on meta, where its levels have no values; expected a model that was "
            "built on another device"
        )
    return tuple(original.num_levels.flatten().tolist())


def _check_grid(original: Any, quantizer: Quantizer) -> None:
    """Raises: ValueError unless the quantizer is FSQ with the original's levels, bound and margin."""
    if original.eps != MARGIN:
        raise ValueError(
            f"{type(original).__name__} has eps={original.eps}, expected {MARGIN} with keep_codebook=True"
        )
    check_grid(quantizer, _levels(original), BOUND)
