"""IndexPropagationQuantize of SEED-Voken, also used by Emu3.5."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.codebook_view import entry_shape, flat_indices
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.images.taming import Info, TamingAdapter
from quantizers.codebooks.ibq import IBQ
from quantizers.core.base import Quantizer

Loss = Tensor | float | tuple[Tensor, Tensor, Tensor, Tensor]


class IBQAdapter(TamingAdapter):
    """Replaces IndexPropagationQuantize of SEED-Voken and of Emu3.5 (main branches; tested with a stand-in).

    The contract is "taming" with other losses: z [B, C, H, W] → (z_q [B, C, H, W], loss [], (None, None, indices
    [B·H·W])). With `use_entropy_loss` the model expects (quantization loss, entropy of a vector, entropy of the
    batch, entropy loss) instead of the loss. It gets the whole loss of the new quantizer first, and zeros. In
    evaluation the loss of Emu3.5's version is the number 0.0.

    The original chooses the code of the largest product z·e, which need not be the nearest, so `keep_codebook`
    needs "ibq". It copies the codes and the weights of the quantization loss. The weight of the entropy loss is in
    the training loop, not here: pass `entropy_weight=` (published: 0.05) and `entropy_temperature=`.

    Not supported: `remap`, and `l2_normalize`, which no published model sets.

    Source: Shi et al.: Scalable Image Tokenization with Index Backpropagation Quantization, 2024 (arXiv
    2412.02692); `src/IBQ/modules/vqvae/quantize.py` in SEED-Voken, and `src/vision_tokenizer/modules/vqvae/
    quantize.py` in Emu3.5.
    """

    contract: ClassVar[str] = "ibq"
    classes: ClassVar[tuple[str, ...]] = ("IndexPropagationQuantize",)
    positions: ClassVar[int] = 2
    reference: ClassVar[str] = "ibq"
    omitted_methods: ClassVar[tuple[str, ...]] = ("init_embedding", "remap_to_used", "unmap_to_all")

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        for name in ("remap", "l2_normalize"):
            value = getattr(original, name, None)
            if value not in (None, False):
                raise ValueError(
                    f"{type(original).__name__} has {name}={value!r}, which this contract does not support; "
                    f"expected no {name}"
                )
        size, dim = original.embedding.weight.shape
        keep_options = {"double_weight": 1.0, "commitment_weight": 1.0, "codebook_weight": original.beta}
        return QuantizerSpec(dim, size, cls.channel_dim, keep_codebook_options=keep_options)

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Copy the codes. Raises: ValueError for a quantizer other than IBQ."""
        own = quantizer.evaluated
        if not isinstance(own, IBQ):
            raise ValueError(
                f"{type(original).__name__} chooses the code of the largest product, so this "
                f"{type(own).__name__} would give other indices with the same codes; expected 'ibq'"
            )
        own.set_codebook(cls.trained_codebook(original))

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """Each call that models make, with its label and what it returned."""
        output = module(z)
        yield "forward", output
        yield "get_codebook_entry", module.get_codebook_entry(output[2][2], shape=entry_shape(z))

    def forward(  # type: ignore[override]
        self, z: Tensor, temp: float | None = None, return_logits: bool = False
    ) -> tuple[Tensor, Loss, Info]:
        """See the class. `temp` and `return_logits` have no effect, as in the original."""
        quantized, indices, loss = self.quantizer(z)
        return quantized, self._losses(loss), (None, None, flat_indices(self.quantizer, indices))

    def _losses(self, loss: Tensor) -> Loss:
        if getattr(self.original, "use_entropy_loss", False):
            zero = torch.zeros_like(loss)
            return loss, zero, zero, zero
        is_emu = hasattr(self.original, "l2_normalize")
        return 0.0 if is_emu and not self.training else loss
