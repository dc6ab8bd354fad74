"""The quantizer of the PyTorch VQ-VAE-2 that is known by its author, rosinality."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.adapter import Adapter, Place, decode_channels_last, set_averages, set_codebook
from quantizers.core.base import Quantizer


class VQVAE2Adapter(Adapter):
    """x [B, H, W, dim] → (quantized [B, H, W, dim], diff [], indices [B, H, W]).

    A model has two, `quantize_t` and `quantize_b`: `plug_in(model, "simvq", at=["quantize_t", "quantize_b"])`.
    The published training weighs diff, which is our loss, by ¼ once more.

    Kept with the codebook by "ema_vq": decay, ε and both averages, so that a step moves the codes alike. Razavi et
    al.: Generating Diverse High-Fidelity Images with VQ-VAE-2, 2019 (arXiv 1906.00446).
    """

    contract: ClassVar[str] = "vqvae2"
    classes: ClassVar[tuple[str, ...]] = ("Quantize",)

    @classmethod
    def read(cls, original: Any) -> Place:
        dim, size = original.embed.shape
        kept = {"decay": original.decay, "epsilon": original.eps, "commitment_weight": 1.0}
        return Place(dim, size, cls.channel_dim, kept=kept)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes: Tensor = original.embed.t()
        return codes

    @classmethod
    @torch.no_grad()
    def keep(cls, original: Any, quantizer: Quantizer) -> None:
        set_codebook(quantizer, cls.trained_codebook(original))
        set_averages(quantizer, original.cluster_size, original.embed_avg.t())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As above."""
        quantized, indices, loss = self.quantizer(x)
        return quantized, loss, indices

    def embed_code(self, indices: Tensor) -> Tensor:
        """The vectors [..., dim] of indices [...]."""
        return decode_channels_last(self.quantizer, indices).to(self.dtype)

    @property
    def dim(self) -> int:
        """Channels of x."""
        return self.quantizer.dim

    @property
    def n_embed(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def embed(self) -> Tensor:
        """All codes, transposed: [dim, K]. Raises: ValueError for several codebooks."""
        if self.quantizer.composed:
            raise ValueError(f"{type(self.quantizer).__name__} has several codebooks, expected one for `embed`")
        return self.embed_code(torch.arange(self.n_embed, device=self.quantizer.codebook.device)).t()
