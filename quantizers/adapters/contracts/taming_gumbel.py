"""taming-transformers' GumbelQuantize."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.adapter import CodebookView, Place
from quantizers.adapters.bases.temperature import GumbelAdapter
from quantizers.codebooks.gumbel import GumbelQuantizer
from quantizers.core.base import Quantizer

Info = tuple[None, None, Tensor]


class TamingGumbelAdapter(GumbelAdapter):
    """z [B, C, H, W] → (z_q [B, d, H, W], loss [], (None, None, indices [B, H, W])).

    Of several codebooks indices have one more axis, last; where the original has use_vqinterface=False they stand
    alone in the place of the tuple. Where C is not d, a learned 1 × 1 convolution leads in; of a module without
    `proj` C is d.

    The original samples in evaluation too; ours takes the code of the largest logit there.

    Esser et al.: Taming Transformers for High-Resolution Image Synthesis, 2021 (arXiv 2012.09841), the published
    code.
    """

    contract: ClassVar[str] = "taming_gumbel"
    classes: ClassVar[tuple[str, ...]] = ("GumbelQuantize",)
    channel_dim: ClassVar[int] = 1

    def __init__(self, quantizer: Quantizer, original: Any) -> None:
        channels = getattr(getattr(original, "proj", None), "in_channels", quantizer.dim)
        agree = channels == quantizer.dim
        super().__init__(quantizer, original, nn.Identity() if agree else nn.Conv2d(channels, quantizer.dim, 1))

    @classmethod
    def read(cls, original: Any) -> Place:
        if original.remap is not None:
            raise ValueError(
                "GumbelQuantize maps its indices to those in use (remap), which a new codebook does not have; "
                "expected remap=None"
            )
        sampling = {
            "hard": bool(original.straight_through),
            "temperature": float(original.temperature),
            "kl_weight": original.kl_weight,
        }
        size, dim = original.embed.weight.shape
        return Place(dim, size, cls.channel_dim, sampling=sampling, kept={"logits": "linear"})

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes: Tensor = original.embed.weight
        return codes

    @classmethod
    @torch.no_grad()
    def keep(cls, original: Any, quantizer: Quantizer) -> None:
        """Carry codes and the map to logits over. Raises: ValueError for a quantizer without such a map, and where
        the original's is of other channels than its codes."""
        channels, dim = original.proj.in_channels, original.embed.embedding_dim
        if not isinstance(quantizer, GumbelQuantizer) or quantizer.to_logits is None or quantizer.code_dim != dim:
            raise ValueError(
                f"{type(original).__name__} chooses codes by a linear map, which {type(quantizer).__name__} as it "
                f"is cannot keep; expected 'gumbel' with logits='linear' and codes of {dim} channels"
            )
        if channels != dim:
            raise ValueError(
                f"{type(original).__name__} chooses codes by a linear map of {channels} channels, and its codes "
                f"have {dim}; a GumbelQuantizer maps as many as its codes have: expected keep_codebook=False"
            )
        quantizer.set_codebook(original.embed.weight)
        quantizer.to_logits.get_parameter("weight").copy_(original.proj.weight[:, :, 0, 0])
        quantizer.to_logits.get_parameter("bias").copy_(original.proj.bias)

    def forward(
        self, z: Tensor, temp: float | None = None, return_logits: bool = False
    ) -> tuple[Tensor, Tensor, Info | Tensor]:
        """As above. Raises: ValueError where `temp` or `return_logits` is set."""
        if temp is not None:
            raise ValueError(
                f"temp is {temp!r}, expected None: set `temperature`, which holds until it is set anew"
            )
        if return_logits:
            raise ValueError("return_logits is True, expected False: no logits [B, K, H, W] are made")
        quantized, indices, loss = self.quantizer(self.entry(z))
        return quantized, loss, (None, None, indices) if self.use_vqinterface else indices

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The vectors [B, d, H, W] of flat indices, for shape (B, H, W, d)."""
        codebooks = indices.shape[-1:] if self.quantizer.composed else ()
        return self._decoded(indices.reshape(*shape[:-1], *codebooks))

    @property
    def use_vqinterface(self) -> bool:
        """Whether the indices stand in a tuple."""
        return bool(getattr(self.original, "use_vqinterface", True))

    @property
    def embed(self) -> CodebookView:
        """The codes, as the nn.Embedding that models read."""
        return CodebookView(self.quantizer, self.dtype)

    @property
    def n_embed(self) -> int:
        """K; so is `re_embed`, where no indices are mapped."""
        return self.quantizer.codebook_size

    re_embed = n_embed
    remap: ClassVar[None] = None

    @property
    def embedding_dim(self) -> int:
        """Channels of z_q."""
        return self.quantizer.dim
