"""GumbelQuantize of taming-transformers."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.codebook_view import CodebookView
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.bases.temperature import GumbelAdapter
from quantizers.codebooks.gumbel import GumbelQuantizer
from quantizers.core.base import Quantizer

Info = tuple[None, None, Tensor]


class TamingGumbelAdapter(GumbelAdapter):
    """Replaces GumbelQuantize of taming-transformers (main branch; tested with a stand-in).

    z [B, C, H, W] → (z_q [B, d, H, W], loss [], (None, None, indices [B, H, W])). With several codebooks indices
    have one more axis, the last. If the original has use_vqinterface=False, the third value is the indices alone.
    If C is not d, a learned 1 × 1 convolution leads in; for a module without `proj`, C is d.

    In evaluation the original samples, and the new quantizer takes the code of the largest logit.

    Not supported: `remap`, the arguments `temp` and `return_logits` of forward, and `keep_codebook` if C is not d.

    Source: Esser et al.: Taming Transformers for High-Resolution Image Synthesis, 2021 (arXiv 2012.09841);
    `taming/modules/vqvae/quantize.py`.
    """

    contract: ClassVar[str] = "taming_gumbel"
    classes: ClassVar[tuple[str, ...]] = ("GumbelQuantize",)
    channel_dim: ClassVar[int] = 1
    positions: ClassVar[int] = 2
    reference: ClassVar[str] = "gumbel"
    samples: ClassVar[bool] = True
    omitted_methods: ClassVar[tuple[str, ...]] = ("remap_to_used", "unmap_to_all")

    def __init__(self, quantizer: Quantizer, original: Any) -> None:
        channels = getattr(getattr(original, "proj", None), "in_channels", quantizer.dim)
        agree = channels == quantizer.dim
        super().__init__(quantizer, original, nn.Identity() if agree else nn.Conv2d(channels, quantizer.dim, 1))

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        if original.remap is not None:
            raise ValueError(
                "GumbelQuantize maps its indices to the codes in use (remap), which does not apply to a new "
                "codebook; expected remap=None"
            )
        sampling = {
            "hard": bool(original.straight_through),
            "temperature": float(original.temperature),
            "kl_weight": original.kl_weight,
            "logits": "linear",
        }
        size, dim = original.embed.weight.shape
        return QuantizerSpec(dim, size, cls.channel_dim, gumbel_options=sampling)

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        return super().example(original, spec._replace(dim=original.proj.in_channels))

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z)
        yield "forward", out
        indices = out[2][2] if module.use_vqinterface else out[2]
        shape = (len(z), *z.shape[2:], out[0].shape[1])
        yield "get_codebook_entry", module.get_codebook_entry(indices.reshape(-1), shape)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes: Tensor = original.embed.weight
        return codes

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Copy the codes and the linear map to logits.

        Raises: ValueError for a quantizer without such a map, and if the original's map does not have as many
            channels as its codes.
        """
        channels, dim = original.proj.in_channels, original.embed.embedding_dim
        if not isinstance(quantizer, GumbelQuantizer) or quantizer.to_logits is None or quantizer.code_dim != dim:
            raise ValueError(
                f"{type(original).__name__} chooses codes by a linear map, which this {type(quantizer).__name__} "
                f"cannot keep; expected 'gumbel' with logits='linear' and codes of {dim} channels"
            )
        if channels != dim:
            raise ValueError(
                f"{type(original).__name__} chooses codes by a linear map of {channels} channels, but its codes "
                f"have {dim}, and a GumbelQuantizer maps as many as its codes have; expected keep_codebook=False"
            )
        quantizer.set_codebook(original.embed.weight)
        quantizer.to_logits.get_parameter("weight").copy_(original.proj.weight[:, :, 0, 0])
        quantizer.to_logits.get_parameter("bias").copy_(original.proj.bias)

    def forward(
        self, z: Tensor, temp: float | None = None, return_logits: bool = False
    ) -> tuple[Tensor, Tensor, Info | Tensor]:
        """See the class. Raises: ValueError if `temp` or `return_logits` is set."""
        if temp is not None:
            raise ValueError(
                f"temp is {temp!r}, expected None: set the attribute `temperature` instead, which lasts"
            )
        if return_logits:
            raise ValueError("return_logits is True, expected False: no logits [B, K, H, W] are made")
        quantized, indices, loss = self.quantizer(self.project_in(z))
        return quantized, loss, (None, None, indices) if self.use_vqinterface else indices

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The vectors [B, d, H, W] of flat indices, for shape (B, H, W, d)."""
        codebooks = indices.shape[-1:] if self.quantizer.composed else ()
        return self._decode_indices(indices.reshape(*shape[:-1], *codebooks))

    @property
    def use_vqinterface(self) -> bool:
        """Whether indices are returned in a tuple."""
        return bool(getattr(self.original, "use_vqinterface", True))

    @property
    def embed(self) -> CodebookView:
        """The codes, with the interface of the nn.Embedding that models read."""
        return CodebookView(self.quantizer, self.dtype)

    @property
    def n_embed(self) -> int:
        """K; `re_embed` is the same, because no indices are mapped."""
        return self.quantizer.codebook_size

    re_embed = n_embed
    remap: ClassVar[None] = None

    @property
    def embedding_dim(self) -> int:
        """The number of channels of z_q."""
        return self.quantizer.dim
