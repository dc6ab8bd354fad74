"""Quantize of the VQ-VAE-2 in PyTorch by rosinality."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.bases.codebook_view import decode_channels_last
from quantizers.adapters.bases.copying import set_averages, set_codebook
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.core.base import Quantizer


class VQVAE2Adapter(Adapter):
    """Replaces Quantize of github.com/rosinality/vq-vae-2-pytorch, `vqvae.py` (no release; tested with a
    stand-in).

    x [B, H, W, dim] → (quantized [B, H, W, dim], diff [], indices [B, H, W]). diff is the new quantizer's loss,
    which the published training multiplies by ¼.

    A model has two quantizers, `quantize_t` and `quantize_b`; replace both with
    `plug_in(model, "simvq", at=["quantize_t", "quantize_b"])`.

    With `keep_codebook`, "ema_vq" also gets decay, ε and both averages, so that a step moves the codes as the
    original's would move.

    Source: Razavi et al.: Generating Diverse High-Fidelity Images with VQ-VAE-2, 2019 (arXiv 1906.00446).
    """

    contract: ClassVar[str] = "vqvae2"
    classes: ClassVar[tuple[str, ...]] = ("Quantize",)
    positions: ClassVar[int] = 2

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        dim, size = original.embed.shape
        keep_options = {"decay": original.decay, "epsilon": original.eps, "commitment_weight": 1.0}
        return QuantizerSpec(dim, size, cls.channel_dim, keep_codebook_options=keep_options)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z)
        yield "forward", out
        yield "embed_code", module.embed_code(out[2])

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes: Tensor = original.embed.t()
        return codes

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        set_codebook(quantizer, cls.trained_codebook(original))
        set_averages(quantizer, original.cluster_size, original.embed_avg.t())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        quantized, indices, loss = self.quantizer(x)
        return quantized, loss, indices

    def embed_code(self, indices: Tensor) -> Tensor:
        """The vectors [..., dim] of indices [...]."""
        return decode_channels_last(self.quantizer, indices).to(self.dtype)

    @property
    def dim(self) -> int:
        """The number of channels of x."""
        return self.quantizer.dim

    @property
    def n_embed(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def embed(self) -> Tensor:
        """All codes, transposed: [dim, K]. Raises: ValueError for a quantizer with several codebooks."""
        if self.quantizer.composed:
            raise ValueError(
                f"{type(self.quantizer).__name__} has several codebooks; expected one, to read `embed`"
            )
        return self.embed_code(torch.arange(self.n_embed, device=self.quantizer.codebook.device)).t()
