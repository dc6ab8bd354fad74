"""The Gumbel quantizer of wav2vec 2.0 in transformers, and of the models that derive from it."""

from typing import Any, ClassVar

from torch import Tensor, nn

from quantizers.adapters.bases.last_loss import LastLossAdapter
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.bases.temperature import GumbelAdapter
from quantizers.adapters.bases.usage import perplexity
from quantizers.core.base import Quantizer
from quantizers.core.output import NO_CODE
from quantizers.core.projection import Projection


class Wav2Vec2Adapter(LastLossAdapter, GumbelAdapter):
    """Replaces Wav2Vec2GumbelVectorQuantizer of transformers (tested with 5.23), and the same quantizer in
    Wav2Vec2-Conformer, UniSpeech, UniSpeech-SAT and WavLM.

    h [B, T, C] → (codevectors [B, T, d], perplexity []), the perplexity summed over the groups' codebooks.

    A quantizer that is built from a name is in each of the original's groups, d / groups channels wide. A
    quantizer that you pass has dim=d. If C is not d, a learned linear map leads in; for a module without
    `weight_proj`, C is d.

    **Losses.** These models add no loss of their quantizer. Their diversity loss learns through the perplexity,
    which the original computes from the mean of all soft assignments while it trains. Here the perplexity is that
    of the chosen codes, in either mode, and has no gradient: the term becomes a constant in the model's loss, and
    only the new quantizer's own loss works against unused codes. Add it, the attribute `loss`; without it a
    codebook that learns by its loss does not learn. It is a mean over vectors, whereas Wav2Vec2ForPreTraining
    sums over masked steps:

        loss = model(x, mask_time_indices=mask, sampled_negative_indices=negatives).loss
        (loss + mask.sum() * model.quantizer.loss).backward()

    Not supported: `keep_codebook`, because the original chooses codes by a linear map of all channels.

    Source: Baevski et al.: wav2vec 2.0, 2020 (arXiv 2006.11477); `models/wav2vec2/modeling_wav2vec2.py` in
    transformers.
    """

    contract: ClassVar[str] = "wav2vec2"
    classes: ClassVar[tuple[str, ...]] = (
        "Wav2Vec2GumbelVectorQuantizer",
        "Wav2Vec2ConformerGumbelVectorQuantizer",
        "UniSpeechGumbelVectorQuantizer",
        "UniSpeechSatGumbelVectorQuantizer",
        "WavLMGumbelVectorQuantizer",
    )
    reference: ClassVar[str] = "gumbel"

    def __init__(self, quantizer: Quantizer, original: Any) -> None:
        channels = getattr(getattr(original, "weight_proj", None), "in_features", quantizer.dim)
        agree = channels == quantizer.dim
        super().__init__(quantizer, original, nn.Identity() if agree else Projection(channels, quantizer.dim))

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        groups = original.num_groups
        dim = groups * original.codevectors.shape[-1]
        sampling = {"hard": True, "temperature": float(original.temperature), "logits": "linear"}
        return QuantizerSpec(dim, original.num_vars, cls.channel_dim, num_groups=groups, gumbel_options=sampling)

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        return super().example(original, spec._replace(dim=original.weight_proj.in_features))

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """The codes of the groups, [groups, K, d / groups]."""
        codes: Tensor = original.codevectors
        return codes.reshape(original.num_groups, original.num_vars, -1)

    @classmethod
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Raises: ValueError, always."""
        width, channels = original.codevectors.shape[-1], original.weight_proj.in_features
        raise ValueError(
            f"{type(original).__name__} chooses among {original.num_vars} codes by a linear map of all its "
            f"{channels} channels. A group of {width} channels cannot hold that map and would choose other codes. "
            "Expected keep_codebook=False; take_codebook(model) returns the codes"
        )

    def forward(self, hidden_states: Tensor, mask_time_indices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See the class. mask_time_indices: bool [B, T], True for the vectors that count in the perplexity."""
        codevectors, indices, self.loss = self.quantizer(self.project_in(hidden_states))
        if not self.quantizer.composed:
            indices = indices[..., None]
        if mask_time_indices is not None:
            indices = indices.where(mask_time_indices[..., None], NO_CODE)
        return codevectors, perplexity(indices.flatten(0, -2))

    @property
    def num_groups(self) -> int:
        """The number of codebooks."""
        return self.quantizer.num_codebooks

    @property
    def num_vars(self) -> int:
        """K, the number of codes in each codebook."""
        return self.quantizer.codebook_size
