"""The residual quantizers of NeMo's audio codecs, of all channels and of groups."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.copying import groups_of
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.bases.stages import StagesAdapter
from quantizers.adapters.contracts.audio.nemo import NemoAdapter
from quantizers.core.base import Quantizer

Encoded = tuple[Tensor, Tensor, Tensor]


class NemoResidualAdapter(NemoAdapter, StagesAdapter):
    """Replaces ResidualVectorQuantizer of NeMo (2.6; tested with a stand-in).

    (inputs [B, D, T], input_len [B]) → (dequantized [B, D, T], indices [N, B, T], loss []); encode and decode as
    in NemoAdapter.

    The loss is that of the new quantizer, the sum over its stages, already weighted, in training and in
    evaluation; in evaluation the original's is the number 0. It is a mean over all vectors that count; the
    original averages each sample first, which differs where lengths do.

    With `keep_codebook` codes and averages are copied. Training continues with the gradients of ResidualQuantizer,
    which follow the chain rule: with straight-through stages inputs get the decoder's gradient once, and the
    original passes it on once for each stage. Averages leave out the positions beyond a sample's length, which the
    original's contain.

    Not supported: k-means within the first forward and moving dead codes within forward. Use
    `quantizers.warm_start` before training, and `quantizers.DeadCodeReplacement`, which moves them between steps.

    Source: Zeghidour et al.: SoundStream, 2021 (arXiv 2107.03312);
    `nemo/collections/tts/modules/encodec_modules.py`.
    """

    contract: ClassVar[str] = "nemo_residual"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVectorQuantizer",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        stages = cls.stages(original)
        size, dim = cls.codes(stages[0]).shape
        keep_options = {"commitment_weight": 1.0, "decay": stages[0].decay, "epsilon": 1e-5}
        return QuantizerSpec(dim, size, cls.channel_dim, len(stages), keep_codebook_options=keep_options)

    @classmethod
    def stages(cls, original: Any) -> list[Any]:
        return list(original.codebooks)

    @classmethod
    def codes(cls, stage: Any) -> Tensor:
        codes: Tensor = stage.codes
        return codes

    @classmethod
    def averages(cls, stage: Any) -> tuple[Tensor, Tensor]:
        return stage.cluster_size, stage.codes_avg

    def forward(self, inputs: Tensor, input_len: Tensor | None = None) -> Encoded:
        """See the class."""
        return self._quantize_lengths(inputs, input_len)


class NemoGroupedResidualAdapter(NemoAdapter):
    """Replaces GroupResidualVectorQuantizer of NeMo (2.6; tested with a stand-in).

    (inputs [B, D, T], input_len [B]) → (dequantized [B, D, T], indices [N, B, T], loss []): "nemo_residual" with
    residual stages for each group of channels. Indices have all stages of the first group in front.

    The loss is that of the new quantizer, the mean over groups; the original's is the sum. With `keep_codebook`
    its commitment has the weight that makes them equal.

    Source: Yang et al.: HiFi-Codec, 2023 (arXiv 2305.02765); `nemo/collections/tts/modules/encodec_modules.py`.
    """

    contract: ClassVar[str] = "nemo_residual_grouped"
    classes: ClassVar[tuple[str, ...]] = ("GroupResidualVectorQuantizer",)
    has_stages: ClassVar[bool] = True

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        group, count = NemoResidualAdapter.read_spec(original.rvqs[0]), original.num_groups
        keep_options = {**group.keep_codebook_options, "commitment_weight": float(count)}
        return group._replace(dim=group.dim * count, num_groups=count, keep_codebook_options=keep_options)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """The codes of all groups' stages, [N, K, channels of a group]."""
        return torch.cat([NemoResidualAdapter.trained_codebook(group) for group in original.rvqs])

    @classmethod
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Copy codes and averages of the stages of each group."""
        groups = groups_of(quantizer.evaluated, original.num_groups)
        for group, own in zip(original.rvqs, groups, strict=True):
            NemoResidualAdapter.copy_codebook(group, own)

    def forward(self, inputs: Tensor, input_len: Tensor | None = None) -> Encoded:
        """See the class."""
        return self._quantize_lengths(inputs, input_len)

    @property
    def num_groups(self) -> int:
        """The number of groups of channels."""
        return len(self.quantizer.groups)

    @property
    def num_codebooks_per_group(self) -> int:
        """The number of residual stages of a group."""
        return self.num_codebooks // self.num_groups

    @property
    def codebook_dim_per_group(self) -> int:
        """The number of channels of a group."""
        return self.quantizer.dim // self.num_groups
