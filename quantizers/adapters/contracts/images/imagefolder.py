"""VectorQuantizer2 of ImageFolder and XQ-GAN: VAR's quantizer of scales, in products."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.images.var import VarAdapter

Encoded = tuple[Tensor, list[float] | None, Tensor, Tensor, int]


class ImageFolderAdapter(VarAdapter):
    """Replaces VectorQuantizer2 of github.com/lxa9867/ImageFolder, which is XQ-GAN's too (no release; tested with
    a stand-in).

    The contract is "var", except for what a forward returns: f [B, C, H, W] → (f_hat [B, C, H, W], usages,
    loss [], 0 [], 0). The loss of the new quantizer stands in the place of the codebook loss; the commitment and
    the entropy are zero. A scale can occur several times in a row.

    A model with `product_quant` above 1 has one quantizer for each group of its latents. Replace all of them with
    `plug_in(model, "simvq", at=["quantizes.0", "quantizes.1"])`.

    In training a sample uses only its first scales with the probability `codebook_drop` of the original, which a
    quantizer that is built from a name takes over as `dropout`. How many it uses is drawn from 1 to all, for each
    quantizer of a model on its own; the argument `dropout` of forward, with which a model draws one number for
    all of them, is not used.

    Not supported: `start_drop` and dropout that is the same in all quantizers of a product; see VarAdapter too.

    Source: Li et al.: ImageFolder: Autoregressive Image Generation with Folded Tokens, 2024 (arXiv 2410.01756);
    Li et al.: XQ-GAN, 2024 (arXiv 2412.01762); `tokenizer/tokenizer_image/quant.py`.
    """

    contract: ClassVar[str] = "imagefolder"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantizer2",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        dropout = float(original.codebook_drop)  # VAR's class has no such attribute
        spec = cls._read_scales(original)
        own: dict[str, Any] = {"dropout": dropout, "dropout_by": "sample"}
        # The original divides the codebook loss by the number of scales, and not the commitment.
        own["commitment_weight"] = float(original.beta) * len(original.v_patch_nums)
        return spec._replace(options={**spec.options, **own})

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """The calls of encoding and decoding; the original's forward needs a process group."""
        yield "f_to_idxBl_or_fhat", module.f_to_idxBl_or_fhat(z, True, v_patch_nums=None)
        tokens = module.f_to_idxBl_or_fhat(z, False, v_patch_nums=None)
        yield "indices", tokens
        yield "embedding", [module.embedding(own) for own in tokens]
        if len(tokens) > 1:
            yield "idxBl_to_var_input", module.idxBl_to_var_input(tokens)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            yield "forward", module(z, ret_usages=True)

    def forward(  # type: ignore[override]
        self, f_BChw: Tensor, ret_usages: bool = False, dropout: Tensor | None = None
    ) -> Encoded:
        """See the class.

        Args: dropout: not used, because scales drop out by PyTorch's generator.

        Raises: ValueError if H and W are not the last of `v_patch_nums`.
        """
        f_hat, usages, loss = super().forward(f_BChw, ret_usages)
        return f_hat, usages, loss, torch.zeros_like(loss), 0
