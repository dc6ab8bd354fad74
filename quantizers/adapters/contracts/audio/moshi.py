"""The residual quantizers of moshi's package, and the halves of its split quantizer."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.audio.audiocraft import AudiocraftAdapter
from quantizers.core.base import Quantizer


class MoshiAdapter(AudiocraftAdapter):
    """Replaces ResidualVectorQuantizer of the package moshi (0.2.13; tested with a stand-in), also both halves of
    its SplitResidualVectorQuantizer.

    The contract is "audiocraft" for x of other channels: (x [B, C, T], frame_rate) → QuantizedResult(x [B, C', T],
    codes [B, n, T], bandwidth, penalty, metrics). The convolutions `input_proj`, in front of the codes, and
    `output_proj`, behind them, stay. They belong to the model, as its encoder does: they are trained with it, and
    `unplug` leaves them as they are.

    **Split quantizer.** `plug_in(mimi, "simvq")` puts a quantizer into each half, the semantic `rvq_first` and the
    acoustic `rvq_rest`, and leaves the module around them, which adds up their vectors and weights their
    penalties; the model checks for its class. `at="quantizer.rvq_rest"` replaces only one half. The module around
    them splits codes, so each half needs as many codebooks as before.

    `ema_frozen_(True)` freezes the codes of the new quantizer.

    With `keep_codebook` codes are m / max(N, ε), as in the model. EMA codes continue from N and m, with the
    smoothing of EMAVectorQuantizer instead of that bound.

    Not supported: another number of codebooks than the original's; `no_quantization_rate`, for which "bypass"
    with `probability` and `quantizer` can be plugged in; a model with `freeze_quantizer`, which changes the mode
    of its own stages in each forward.

    Source: Défossez et al.: Moshi: a speech-text foundation model for real-time dialogue, 2024 (arXiv 2410.00037),
    §3.3; `moshi/quantization/vq.py`.

    Raises: ValueError for another number of codebooks, and for a model with `freeze_quantizer`.
    """

    contract: ClassVar[str] = "moshi"
    replaced_together: ClassVar[bool] = True

    _fewest: ClassVar[int] = 0  # the acoustic half of a model that uses the semantic codebooks alone

    def __init__(self, quantizer: Quantizer, original: Any) -> None:
        expected = getattr(original, "max_n_q", quantizer.num_codebooks)
        if quantizer.num_codebooks != expected:
            raise ValueError(
                f"quantizer has {quantizer.num_codebooks} codebooks, expected the {expected} of "
                f"{type(original).__name__}: a split quantizer divides codes between its halves by this number"
            )
        super().__init__(quantizer, original)
        self.input_proj: nn.Module = getattr(original, "input_proj", None) or nn.Identity()
        self.output_proj: nn.Module = getattr(original, "output_proj", None) or nn.Identity()

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        _ = original.max_n_q, original.n_q, original.ema_frozen_, original.input_proj
        stages = cls.stages(original)
        codebook = stages[0]._codebook
        size, dim = codebook.embedding_sum.shape
        keep_options = {"commitment_weight": 1.0, "decay": codebook.decay, "epsilon": codebook.epsilon}
        return QuantizerSpec(dim, size, cls.channel_dim, len(stages), keep_codebook_options=keep_options)

    @classmethod
    def codes(cls, stage: Any) -> Tensor:
        # The property `embedding` would cache them in the original, and ignore weights that are loaded later.
        cluster_size, embedding_sum = cls.averages(stage)
        return embedding_sum / cluster_size.clamp(min=stage._codebook.epsilon)[:, None]

    @classmethod
    def averages(cls, stage: Any) -> tuple[Tensor, Tensor]:
        return stage._codebook.cluster_usage, stage._codebook.embedding_sum

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        return super().example(original, spec._replace(dim=original.input_dimension))

    @classmethod
    def check_quantizer(cls, model: nn.Module, quantizer: Quantizer) -> None:
        """Check that the model does not freeze single stages. Raises: ValueError if it does."""
        for module in model.modules():
            if getattr(module, "freeze_quantizer", False):
                raise ValueError(
                    f"{type(module).__name__} has freeze_quantizer=True and sets the mode of its quantizer's own "
                    "stages in each forward; set freeze_quantizer to False, plug in, and call freeze() of the new "
                    "quantizer"
                )

    def forward(self, x: Tensor, frame_rate: float) -> Any:
        """See the class. frame_rate: in vectors per second."""
        result = super().forward(self.input_proj(x), frame_rate)
        result.x = self.output_proj(result.x)
        return result

    def encode(self, x: Tensor) -> Tensor:
        """Codes [B, n, T] of x [B, C, T], those of evaluation in either mode; T may be 0."""
        if not x.shape[-1]:
            return torch.empty(x.shape[0], self.n_q, 0, dtype=torch.int64, device=x.device)
        return super().encode(self.input_proj(x))

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors [B, C', T] of codes [B, n, T]."""
        decoded: Tensor = self.output_proj(super().decode(codes))
        return decoded

    def ema_frozen_(self, ema_frozen: bool) -> None:
        """Freeze the codes, or let them learn again."""
        if ema_frozen:
            self.quantizer.freeze()
        else:
            self.quantizer.unfreeze()

    @property
    def ema_frozen(self) -> bool:
        """Whether the codes are frozen."""
        return self.quantizer.frozen

    @property
    def cardinality(self) -> int:
        """K, the new quantizer's codebook size."""
        return self.codebook_size

    @property
    def input_dimension(self) -> int:
        """C, the number of channels of x."""
        return getattr(self.input_proj, "in_channels", self.quantizer.dim)

    @property
    def output_dimension(self) -> int:
        """C', the number of channels of decoded vectors."""
        return getattr(self.output_proj, "out_channels", self.quantizer.dim)

    @property
    def semantic_quantizer(self) -> Self:
        """This quantizer itself, if it is not split."""
        return self

    @property
    def acoustic_quantizer(self) -> Self:
        """This quantizer itself, if it is not split."""
        return self
