"""taming-transformers' VectorQuantizer2, as in latent-diffusion and in the VQModel of diffusers."""

from typing import Any, ClassVar

from torch import Tensor

from quantizers.adapters.bases.adapter import Adapter, CodebookView, Place, flat_indices

Info = tuple[None, None, Tensor]


class TamingAdapter(Adapter):
    """z [B, C, H, W] → (z_q [B, C, H, W], loss [], (None, None, indices)).

    Indices are [B·H·W], or [B, H, W] where the original has `sane_index_shape`; of several codebooks one more
    axis, last. Esser et al.: Taming Transformers for High-Resolution Image Synthesis, 2021 (arXiv 2012.09841), the
    published code.
    """

    contract: ClassVar[str] = "taming"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantizer", "VectorQuantizer2")
    channel_dim: ClassVar[int] = 1

    @classmethod
    def read(cls, original: Any) -> Place:
        if original.remap is not None:
            raise ValueError(
                f"{type(original).__name__} maps its indices to those in use (remap), which a new codebook "
                "does not have; expected remap=None"
            )
        # The published code weights the wrong term, and keeps to it as `legacy`.
        weights = (1.0, original.beta) if original.legacy else (original.beta, 1.0)
        kept = dict(zip(("commitment_weight", "codebook_weight"), weights, strict=True))
        size, dim = original.embedding.weight.shape
        return Place(dim, size, cls.channel_dim, kept=kept)

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
        """As above; the other arguments are those of the Gumbel contract, and have no meaning here.

        Raises: ValueError where one of them is set.
        """
        if temp not in (None, 1.0) or rescale_logits or return_logits:
            raise ValueError(
                "temp, rescale_logits and return_logits are for a Gumbel quantizer; expected none of them"
            )
        quantized, indices, loss = self.quantizer(z)
        if not self.sane_index_shape:
            indices = flat_indices(self.quantizer, indices)
        return quantized, loss, (None, None, indices)

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """The vectors of flat indices: [B, C, H, W] for shape (B, H, W, C), [N, C] without."""
        if shape is None:
            return self.embedding(indices)
        codebooks = indices.shape[-1:] if self.quantizer.composed else ()
        return self._decoded(indices.reshape(*shape[:-1], *codebooks))

    @property
    def embedding(self) -> CodebookView:
        """The codes, as the nn.Embedding that models read."""
        return CodebookView(self.quantizer, self.dtype)

    @property
    def n_e(self) -> int:
        """K; so is `re_embed`, where no indices are mapped."""
        return self.quantizer.codebook_size

    re_embed = n_e
    remap: ClassVar[None] = None

    @property
    def e_dim(self) -> int:
        """Channels of z; diffusers calls it `vq_embed_dim`."""
        return self.quantizer.dim

    vq_embed_dim = e_dim
