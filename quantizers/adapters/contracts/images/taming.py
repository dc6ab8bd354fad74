"""VectorQuantizer2 of taming-transformers, also used by latent-diffusion, and VectorQuantizer of diffusers."""

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor

from quantizers.adapters.bases.codebook_view import entry_shape, flat_indices
from quantizers.adapters.bases.embedding import EmbeddingAdapter
from quantizers.adapters.bases.spec import QuantizerSpec

Info = tuple[None, None, Tensor]


class TamingAdapter(EmbeddingAdapter):
    """Replaces VectorQuantizer2 of taming-transformers (main branch; tested with a stand-in) and
    latent-diffusion, and VectorQuantizer of diffusers (tested with 0.42).

    z [B, C, H, W] → (z_q [B, C, H, W], loss [], (None, None, indices)). Indices are [B·H·W], or [B, H, W] if the
    original has `sane_index_shape`. With several codebooks they have one more axis, the last.

    Not supported: `remap`, and the arguments of forward that are meant for a Gumbel quantizer.

    Source: Esser et al.: Taming Transformers for High-Resolution Image Synthesis, 2021 (arXiv 2012.09841);
    `taming/modules/vqvae/quantize.py`; `models/autoencoders/vae.py` in diffusers.
    """

    contract: ClassVar[str] = "taming"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantizer", "VectorQuantizer2")
    channel_dim: ClassVar[int] = 1
    positions: ClassVar[int] = 2
    omitted_methods: ClassVar[tuple[str, ...]] = ("remap_to_used", "unmap_to_all")

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        if original.remap is not None:
            raise ValueError(
                f"{type(original).__name__} maps its indices to the codes in use (remap), which does not apply to "
                "a new codebook; expected remap=None"
            )
        # The first published code weighted the wrong term by beta; `legacy` keeps that behaviour.
        weights = (1.0, original.beta) if original.legacy else (original.beta, 1.0)
        keep_options = dict(zip(("commitment_weight", "codebook_weight"), weights, strict=True))
        size, dim = original.embedding.weight.shape
        return QuantizerSpec(dim, size, cls.channel_dim, keep_codebook_options=keep_options)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z)
        yield "forward", out
        yield "get_codebook_entry", module.get_codebook_entry(out[2][2].reshape(-1), entry_shape(z))

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes: Tensor = original.embedding.weight
        return codes

    @property
    def sane_index_shape(self) -> bool:
        """Whether indices are maps."""
        return bool(getattr(self.original, "sane_index_shape", False))

    def forward(
        self, z: Tensor, temp: float | None = None, rescale_logits: bool = False, return_logits: bool = False
    ) -> tuple[Tensor, Tensor, Info]:
        """See the class. The other arguments belong to the Gumbel contract and have no meaning here.

        Raises: ValueError if one of them is set.
        """
        if temp not in (None, 1.0) or rescale_logits or return_logits:
            raise ValueError(
                f"got temp={temp!r}, rescale_logits={rescale_logits!r}, return_logits={return_logits!r}, which "
                "are arguments for a Gumbel quantizer; expected none of them"
            )
        quantized, indices, loss = self.quantizer(z)
        if not self.sane_index_shape:
            indices = flat_indices(self.quantizer, indices)
        return quantized, loss, (None, None, indices)

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """The vectors of flat indices: [B, C, H, W] for shape (B, H, W, C), [N, C] without a shape."""
        if shape is None:
            return self.embedding(indices)
        codebooks = indices.shape[-1:] if self.quantizer.composed else ()
        return self._decode_indices(indices.reshape(*shape[:-1], *codebooks))

    @property
    def n_e(self) -> int:
        """K; `re_embed` is the same, because no indices are mapped."""
        return self.quantizer.codebook_size

    re_embed = n_e
    remap: ClassVar[None] = None

    @property
    def e_dim(self) -> int:
        """The number of channels of z; diffusers calls it `vq_embed_dim`."""
        return self.quantizer.dim

    vq_embed_dim = e_dim
