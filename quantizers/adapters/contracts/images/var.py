"""VectorQuantizer2 of VAR, which quantizes maps scale by scale."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.bases.codebook_view import CodebookView
from quantizers.adapters.bases.copying import set_codebook
from quantizers.adapters.bases.distances import distance_of
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.composite.blends import BlendConvolution, spread_blends
from quantizers.composite.pyramid import upsample
from quantizers.composite.pyramid_quantizer import PyramidQuantizer
from quantizers.core.base import Quantizer
from quantizers.core.state.half_state import call_widened, widened
from quantizers.kernels.common.dispatch import without_autocast

Size = tuple[int, int]

SHARE_OF_MEAN = 0.08
"""A code counts as used if it occurs at least this share of the times that all codes would on average."""


class VarAdapter(Adapter):
    """Replaces VectorQuantizer2 of github.com/FoundationVision/VAR (no release; tested with a stand-in).

    f [B, C, H, W] → (f_hat [B, C, H, W], usages, loss []). Usages are None, or with `ret_usages=True` a list: for
    each scale, the percentage of codes that are in use. A code is in use if it occurs in at least 0.08 · B·H·W / K
    positions. The original counts over many steps and all processes, this adapter in the batch alone. f_hat has
    the dtype of f.

    A name stands for the quantizer of all scales: `plug_in(model, "bsq")` builds a VARQuantizer with one BSQ for
    all of them. It has the model's sizes of scales, β, number of convolutions φ and their ratio. A new codebook is
    searched by angle if the original's is (`using_znorm`). With `keep_codebook` the convolutions are copied too.

    The codes of FSQ, BSQ and others have fewer channels than f, which is projected once before the scales and once
    after them. What a VAR reads is in code space then: `embedding`, `idxBl_to_var_input` and the second result of
    `get_next_autoregressive_input` have zeros in the other channels.

    **Plug in before you build the VAR and its trainer.** Both keep a reference to the quantizer of the VQVAE,
    which `plug_in` does not replace. `build_vae_var` builds VQVAE and VAR together; after it, set
    `var.vae_quant_proxy = (vqvae.quantize,)`. It also switches off the initial values of convolutions and linear
    layers in the whole process, so a quantizer that is plugged in later needs `keep_codebook=True`.

    Not supported: the running averages `ema_vocab_hit_SV`, more convolutions than scales, and an `SN` in
    `get_next_autoregressive_input` that is not the number of scales. A quantizer with a codebook for each scale
    trains and encodes, but has no `embedding`, which a VAR reads when it samples.

    Source: Tian et al.: Visual Autoregressive Modeling, 2024 (arXiv 2404.02905); `models/quant.py`.
    """

    contract: ClassVar[str] = "var"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantizer2",)
    channel_dim: ClassVar[int] = 1
    has_scales: ClassVar[bool] = True
    positions: ClassVar[int] = 2
    reference: ClassVar[str] = "var"
    omitted_methods: ClassVar[tuple[str, ...]] = ("eini",)

    quantizer: PyramidQuantizer

    v_patch_nums: Sequence[int] | None
    """The sides of the maps of all scales; None if the original does not say. Can be assigned."""

    prog_si: int
    """The last scale that methods for a VAR's training use; −1 for all. VAR's trainer sets it."""

    def __init__(self, quantizer: Quantizer, original: nn.Module) -> None:
        super().__init__(quantizer, original)
        self.v_patch_nums = getattr(original, "v_patch_nums", None)
        self.prog_si = -1

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        if hasattr(original, "codebook_drop"):
            raise TypeError("it has codebook_drop, unlike VAR's")
        return cls._read_scales(original)

    @classmethod
    def _read_scales(cls, original: Any) -> QuantizerSpec:
        size, dim = original.embedding.weight.shape
        sides = [int(side) for side in original.v_patch_nums]
        if not sides or sides[0] < 1 or any(low > high for low, high in itertools.pairwise(sides)):
            raise ValueError(
                f"{type(original).__name__} has v_patch_nums={tuple(sides)}; expected sides of at least 1 that "
                "ascend"
            )
        convolutions = _convolutions(original)
        if len(convolutions) > len(sides):
            raise ValueError(
                f"{type(original).__name__} has {len(convolutions)} convolutions for {len(sides)} scales; "
                "expected at most one per scale"
            )
        options = {
            "distance": "angle" if original.using_znorm else "euclidean",
            "interpolation": "cubic",
            "num_blends": len(convolutions),
            "blend_ratio": abs(float(original.quant_resi_ratio)),
            "commitment_weight": float(original.beta),
            "codebook_weight": 1.0,
        }
        scales = tuple(side / sides[-1] for side in sides)
        return QuantizerSpec(dim, size, cls.channel_dim, options=options, scales=scales)

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        side = int(original.v_patch_nums[-1])
        return torch.randn(2, spec.dim, side, side)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            yield "forward", module(z)  # the original's asks for the number of ranks
        tokens = module.f_to_idxBl_or_fhat(z, to_fhat=False)
        yield "f_to_idxBl_or_fhat", tokens
        yield "f_to_idxBl_or_fhat with to_fhat", module.f_to_idxBl_or_fhat(z, to_fhat=True)
        yield "idxBl_to_var_input", module.idxBl_to_var_input(tokens)
        maps = [module.embedding(own).mT.unflatten(2, (math.isqrt(own.shape[1]), -1)) for own in tokens]
        yield "embed_to_fhat", module.embed_to_fhat(maps)

    @classmethod
    def check_quantizer(cls, model: nn.Module, quantizer: Quantizer) -> None:
        """Raises: ValueError for other axes than those of images, and for codes of more channels than x."""
        if _pyramid(quantizer).axes != 2 or quantizer.code_dim > quantizer.dim:
            raise ValueError(
                f"quantizer has {_pyramid(quantizer).axes} axes, and codes of {quantizer.code_dim} channels, but "
                f"the model adds up codes of images in {quantizer.dim} channels; expected axes=2, and at most "
                f"{quantizer.dim} channels"
            )

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes: Tensor = original.embedding.weight
        return codes

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Copy the codes and the convolutions.

        Raises: ValueError for scales that have a codebook each, or pass other modules than the original's.
        """
        own, convolutions = _pyramid(quantizer), _convolutions(original)
        blends = [blend for blend in own.blends if isinstance(blend, BlendConvolution)]
        only_sums = len(own.quantizers) == 1 and own.entry is None and own.interpolation == "cubic"
        if not only_sums or not len(own.blends) == len(blends) == len(convolutions):
            raise ValueError(
                f"{type(quantizer).__name__} cannot keep the codebook of {type(original).__name__}; expected one "
                f"quantizer for all scales, interpolation='cubic', {len(convolutions)} BlendConvolutions, no entry"
            )
        set_codebook(own.components[0], cls.trained_codebook(original))
        for blend, convolution in zip(blends, convolutions, strict=True):
            blend.ratio = abs(float(original.quant_resi_ratio))
            blend.convolution.load_state_dict(convolution.state_dict())

    def forward(self, f_BChw: Tensor, ret_usages: bool = False) -> tuple[Tensor, list[float] | None, Tensor]:
        """See the class.

        Raises: ValueError if H and W are not the last of `v_patch_nums`.
        """
        sizes = self._sizes(f_BChw.shape[2:])
        quantized, indices, loss = self.quantizer(f_BChw, sizes=sizes)
        usages = None
        if ret_usages:
            least = SHARE_OF_MEAN * f_BChw[:, 0].numel() / self.vocab_size
            usages = [self._usage(tokens, least) for tokens in self.quantizer.split(indices, sizes)]
        return quantized, usages, loss

    def f_to_idxBl_or_fhat(
        self, f_BChw: Tensor, to_fhat: bool, v_patch_nums: Sequence[int | Size] | None = None
    ) -> list[Tensor]:
        """The indices [B, l] of each scale, or with `to_fhat` the sum [B, C, H, W] of the scales up to it.

        Args: v_patch_nums: the sides, or the sizes, of all scales of this call; at most as many as the quantizer
            has. The last is that of f.

        Raises: ValueError for sizes that do not ascend to that of f.
        """
        given = v_patch_nums or self.v_patch_nums
        sizes = self._sizes(f_BChw.shape[2:]) if given is None else [_pair(side) for side in given]
        indices = self.quantizer.encode(f_BChw, sizes=sizes)
        used = len(sizes) if self.prog_si < 0 else min(self.prog_si + 1, len(sizes))
        tokens = [own.flatten(1) for own in self.quantizer.split(indices, sizes)[:used]]
        if not to_fhat:
            return tokens
        firsts = [torch.cat(tokens[: count + 1], 1) for count in range(used)]
        return [self.quantizer.decode(own, sizes).to(self.dtype) for own in firsts]

    def embed_to_fhat(
        self, ms_h_BChw: Sequence[Tensor], all_to_max_scale: bool = True, last_one: bool = False
    ) -> list[Tensor] | Tensor:
        """f_hat [B, C, H, W] up to each scale, from the `embedding` [B, C, side, side] of all scales.

        Args:
            all_to_max_scale: interpolate each scale to full size, as the quantizer does. Otherwise each sum has
                the size of its last scale, which VAR calls experimental.
            last_one: return the last sum alone.

        Raises: ValueError for another number of scales.
        """
        scales = len(self.quantizer.components)
        if len(ms_h_BChw) != scales:
            raise ValueError(f"got the vectors of {len(ms_h_BChw)} scales, expected {scales}")
        sums: list[Tensor] = []
        for position, h in enumerate(ms_h_BChw):
            size = _size_of(ms_h_BChw[-1] if all_to_max_scale else h)
            value = self._value(position, h, size)
            sums.append(value if not sums else upsample(sums[-1], size, "cubic") + value)
        if last_one:
            return self._project_out(sums[-1])
        return [self._project_out(total) for total in sums]

    def idxBl_to_var_input(self, gt_ms_idx_Bl: Sequence[Tensor]) -> Tensor | None:
        """What a VAR reads to predict each scale after the first, [B, L − l_0, C], from the indices [B, l] of all
        scales, in the channels of `embedding`. None if `prog_si` is 0: nothing is read to predict the first scale.

        Raises: as `Quantizer.decode`.
        """
        sizes = self._sizes((math.isqrt(gt_ms_idx_Bl[-1].shape[1]),) * 2)
        steps = len(sizes) - 1 if self.prog_si < 0 else min(self.prog_si, len(sizes) - 1)
        if not steps:
            return None
        inputs = self.quantizer.scale_inputs(torch.cat([*gt_ms_idx_Bl[:steps]], 1), sizes)
        return _padded(inputs, self.Cvae).to(self.dtype)

    def get_next_autoregressive_input(
        self, si: int, SN: int, f_hat: Tensor, h_BChw: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add the `embedding` h [B, C, side, side] of scale `si` of `SN` to f_hat [B, C, H, W], in place.

        Before the last scale, f_hat is in the channels of `embedding`; after it, it is projected out.

        Returns: f_hat, and what a VAR reads to predict the next scale, [B, C, next side, next side]; after the
            last scale f_hat itself.

        Raises: ValueError if SN is not the number of scales.
        """
        sizes = self._sizes(f_hat.shape[2:])
        if len(sizes) != SN:
            raise ValueError(f"SN is {SN}, but the quantizer has {len(sizes)} scales")
        total = f_hat[:, : self.quantizer.code_dim].add_(self._value(si, h_BChw, _size_of(f_hat)))
        if si == SN - 1:
            f_hat.copy_(self._project_out(total))
            return f_hat, f_hat
        return f_hat, functional.interpolate(f_hat, size=sizes[si + 1], mode="area")

    @property
    def embedding(self) -> "PaddedCodes":
        """The codes of all scales, with the interface of the nn.Embedding that models read: C channels, of which
        those beyond the codes' own are zero.

        Raises: ValueError for a quantizer with a codebook for each scale.
        """
        if len(self.quantizer.quantizers) > 1:
            raise ValueError(
                f"{type(self.quantizer).__name__} has a codebook for each scale, but the model looks up codes "
                "without their scale; expected one quantizer for all scales (shared=True)"
            )
        return PaddedCodes(self.quantizer.components[0], self.dtype, self.Cvae)

    @property
    def quant_resi(self) -> "ScaleModules":
        """φ by the place of a scale: `quant_resi[si / (SN − 1)]`."""
        return ScaleModules(self.quantizer)

    @property
    def vocab_size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def Cvae(self) -> int:
        """C."""
        return self.quantizer.dim

    @property
    def using_znorm(self) -> bool:
        """Whether codes are chosen by angle."""
        return distance_of(self.quantizer.components[0]) == "angle"

    @property
    def beta(self) -> float:
        """The commitment weight."""
        return float(getattr(self.quantizer, "commitment_weight", 0.0))

    @property
    def ema_vocab_hit_SV(self) -> Tensor:
        """The original's averages, which do not change. VQVAE.load_state_dict reads their shape."""
        averages: Tensor = self.original.ema_vocab_hit_SV
        return averages

    def _sizes(self, full: Sequence[int]) -> list[Size]:
        """The sizes of all scales of maps of a size."""
        if self.v_patch_nums is None:
            return [_pair(size) for size in self.quantizer.scale_sizes(full)]
        return [(side, side) for side in self.v_patch_nums]

    def _value(self, position: int, h: Tensor, size: Size) -> Tensor:
        """φ of the embedding [B, C, side, side] of a scale at a size, [B, code_dim, *size]."""
        codes = widened(h[:, : self.quantizer.code_dim])
        with without_autocast(h.device):
            full = upsample(codes, size, self.quantizer.interpolation)
            return call_widened(self.quant_resi.of(position), full)

    def _project_out(self, total: Tensor) -> Tensor:
        """f_hat [B, C, H, W] for the sum of scales in code space, [B, code_dim, H, W]."""
        with without_autocast(total.device):
            projected = call_widened(self.quantizer.project_out, widened(total).movedim(1, -1))
        return projected.movedim(-1, 1).to(self.dtype)

    def _usage(self, tokens: Tensor, least: float) -> float:
        """The percentage of codes that occur at least that often."""
        _, counts = torch.unique(tokens[tokens >= 0], return_counts=True)
        return 100 * int((counts >= least).sum()) / self.vocab_size


class PaddedCodes(CodebookView):
    """Codes with zeros after their own channels.

    Args: channels: how many channels there are with the zeros.
    """

    def __init__(self, quantizer: Quantizer, dtype: torch.dtype, channels: int) -> None:
        super().__init__(quantizer, dtype)
        self._channels = channels

    def __call__(self, indices: Tensor) -> Tensor:
        """The vectors [..., channels] of indices."""
        return _padded(super().__call__(indices), self._channels)

    @property
    def embedding_dim(self) -> int:
        """The number of channels with the zeros."""
        return self._channels


class ScaleModules:
    """The modules that scales pass after their interpolation, by the place of a scale."""

    def __init__(self, quantizer: PyramidQuantizer) -> None:
        self._modules = list(quantizer.blends)
        self._scales = len(quantizer.components)

    def __getitem__(self, place: float) -> nn.Module:
        """The module at a place from 0, the coarsest scale, to 1, the finest."""
        return self.of(round(place * (self._scales - 1)))

    def of(self, position: int) -> nn.Module:
        """The module of a scale."""
        return spread_blends(position, self._scales, self._modules) if self._modules else nn.Identity()


def _pyramid(quantizer: Quantizer) -> PyramidQuantizer:
    assert isinstance(quantizer, PyramidQuantizer)  # as `plug_in` has checked, because a spec has `scales`
    return quantizer


def _convolutions(original: Any) -> list[nn.Conv2d]:
    """The original's convolutions φ, in order; none if its ratio is 0."""
    return [module for module in original.quant_resi.modules() if isinstance(module, nn.Conv2d)]


def _padded(vectors: Tensor, channels: int) -> Tensor:
    return functional.pad(vectors, (0, channels - vectors.shape[-1]))


def _pair(size: int | Sequence[int]) -> Size:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _size_of(grid: Tensor) -> Size:
    return _pair(grid.shape[2:])
