"""The quantizer of wav2vec 2.0 in transformers, and of the models that follow it."""

from typing import Any, ClassVar

from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Place
from quantizers.adapters.bases.last_loss import LastLossAdapter
from quantizers.adapters.bases.perplexity import perplexity
from quantizers.adapters.bases.temperature import GumbelAdapter
from quantizers.core.base import Quantizer
from quantizers.core.output import NO_CODE
from quantizers.core.projection import Projection


class Wav2Vec2Adapter(LastLossAdapter, GumbelAdapter):
    """h [B, T, C] → (codevectors [B, T, d], perplexity []), the sum over the groups' codebooks.

    A name stands for a quantizer in each of the original's groups, d / groups channels wide; a quantizer that is
    given has dim=d. Where C is not d, a learned linear map leads in; of a module without `weight_proj` C is d.

    **Losses.** These models add no loss of their quantizer, and their diversity loss learns through the
    perplexity, which the original computes from the mean of all soft assignments while it trains. Ours is that of
    the chosen codes in either mode, and has no gradient: the term stays in the model's loss as a constant, and
    nothing but ours works against unused codes. Add ours, `loss`, or a codebook that learns by its loss does not
    learn; as a mean over vectors, where Wav2Vec2ForPreTraining sums over masked steps:

        loss = model(x, mask_time_indices=mask, sampled_negative_indices=negatives).loss
        (loss + mask.sum() * model.quantizer.loss).backward()

    Baevski et al.: wav2vec 2.0, 2020 (arXiv 2006.11477).
    """

    contract: ClassVar[str] = "wav2vec2"
    classes: ClassVar[tuple[str, ...]] = (
        "Wav2Vec2GumbelVectorQuantizer",
        "Wav2Vec2ConformerGumbelVectorQuantizer",
        "UniSpeechGumbelVectorQuantizer",
        "UniSpeechSatGumbelVectorQuantizer",
        "WavLMGumbelVectorQuantizer",
    )

    def __init__(self, quantizer: Quantizer, original: Any) -> None:
        channels = getattr(getattr(original, "weight_proj", None), "in_features", quantizer.dim)
        agree = channels == quantizer.dim
        super().__init__(quantizer, original, nn.Identity() if agree else Projection(channels, quantizer.dim))

    @classmethod
    def read(cls, original: Any) -> Place:
        groups = original.num_groups
        dim = groups * original.codevectors.shape[-1]
        sampling = {"hard": True, "temperature": float(original.temperature)}
        return Place(dim, original.num_vars, cls.channel_dim, groups=groups, sampling=sampling)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """The codes of the groups, [groups, K, d / groups]."""
        codes: Tensor = original.codevectors
        return codes.reshape(original.num_groups, original.num_vars, -1)

    @classmethod
    def keep(cls, original: Any, quantizer: Quantizer) -> None:
        """Raises: ValueError, always."""
        width, channels = original.codevectors.shape[-1], original.weight_proj.in_features
        raise ValueError(
            f"{type(original).__name__} chooses among {original.num_vars} codes by a linear map of all its "
            f"{channels} channels, which a group of ours, {width} channels wide, cannot hold: it would choose "
            "other codes. Expected keep_codebook=False; take_codebook(model) gives the codes"
        )

    def forward(self, hidden_states: Tensor, mask_time_indices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As above. mask_time_indices: bool [B, T], True for the vectors that count in the perplexity."""
        codevectors, indices, self.loss = self.quantizer(self.entry(hidden_states))
        if not self.quantizer.composed:
            indices = indices[..., None]
        if mask_time_indices is not None:
            indices = indices.where(mask_time_indices[..., None], NO_CODE)
        return codevectors, perplexity(indices.flatten(0, -2))

    @property
    def num_groups(self) -> int:
        """How many codebooks there are."""
        return self.quantizer.num_codebooks

    @property
    def num_vars(self) -> int:
        """K, of each codebook."""
        return self.quantizer.codebook_size
