"""VectorQuantizer of GigaTok."""

from typing import Any, ClassVar

from torch import Tensor

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.images.llamagen import Info, LlamaGenAdapter, Losses


class GigaTokAdapter(LlamaGenAdapter):
    """Replaces VectorQuantizer of GigaTok (main branch; tested with a stand-in).

    The contract is "llamagen", with the losses in a list, which the training loop writes to: z [B, C, H, W] →
    (z_q [B, C, H, W], [vq_loss, commit_loss, entropy_loss, codebook_usage], (None, None, indices [B·H·W])).

    With `keep_codebook` a quantizer gets gradient="rotation" if the original has `rot` and the method supports it.
    The codes of an original with `simvq` are kept as its transform returns them.

    Not supported: `stochastic` without `eval_deterministic`, whose codes are drawn in evaluation too; with it, the
    new quantizer draws nothing in training. `random_replace` in training: "bypass" around a quantizer lets whole
    samples through instead. The classes VectorQuantizerWithPM and LFQ of GigaTok, which return other tuples.

    Source: Xiong et al.: GigaTok: Scaling Visual Tokenizers to 3 Billion Parameters for Autoregressive Image
    Generation, 2025 (arXiv 2504.08736); `tokenizer/tokenizer_image/vq/vq_vit_model.py`.
    """

    contract: ClassVar[str] = "gigatok"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantizer",)
    omitted_methods: ClassVar[tuple[str, ...]] = ("get_emb", "get_very_efficient_rotation")

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        rotates = original.rot
        if original.stochastic and not original.eval_deterministic:
            raise ValueError(
                f"{type(original).__name__} draws its codes, also in evaluation (stochastic=True); expected "
                "stochastic=False, or eval_deterministic=True"
            )
        spec = cls._read_sizes(original)
        gradient = {"gradient": "rotation"} if rotates else {}
        return spec._replace(keep_codebook_options={**spec.keep_codebook_options, **gradient})

    @classmethod
    def _table(cls, original: Any) -> Tensor:
        codes: Tensor = original.get_emb()
        return codes

    def forward(
        self, z: Tensor, random_replace: bool = False, replace_ratio: float = 0.1
    ) -> tuple[Tensor, Losses, Info]:
        """See the class. `replace_ratio` is that of `random_replace`.

        Raises: ValueError if `random_replace` is set in training; in evaluation it has no effect.
        """
        if random_replace and self.training:
            raise ValueError(
                "random_replace is True, expected False: plug in 'bypass', which lets some of the samples through"
            )
        quantized, losses, info = super().forward(z)
        return quantized, list(losses), info
