"""FSP of vector-quantize-pytorch."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.common import PackageAdapter, copy_projections, refuse
from quantizers.core.base import Quantizer
from quantizers.core.projection import Projection
from quantizers.kernels.common.dispatch import without_autocast
from quantizers.kernels.levels.digits import digit_weights, index_digits
from quantizers.scalar.fsp import FSP
from quantizers.scalar.grid import GridQuantizer

CDFS = {"tanh": "tanh", "sigmoid": "logistic", "normal": "normal"}
"""The original's names of distributions, and those of this library."""

DEVIATION = 12**-0.5  # of a number that is uniform in [0, 1]: the original's codes have variance 1


class FSPAdapter(PackageAdapter):
    """Replaces FSP of vector-quantize-pytorch (tested with 1.32).

    x [..., dim], with `channel_first` [B, dim, ...] → (quantized, indices [...], norm_loss [], a dict).

    Indices are int32, as in the original, and int64 if int32 cannot count the codes. The codes of "fsp" are
    scaled to variance 1, as the original's are, unless a projection behind them can do that. The loss of "fsp" is
    the original's `vector_norm`; the dict has its statistics ("norm_info") and the levels ("level_indices" [...,
    channels]). For other quantizers the loss is their own, and the dict is empty.

    A new "fsp" gets the original's levels, CDF (for "laplace" and "cauchy" the default CDF of "fsp") and rate of
    quantization. With `keep_codebook` the projections are copied; codes and indices are then the original's,
    except where a channel is within rounding of the edge between two levels.

    Not supported: `eps` in forward; with `keep_codebook` `need_inv_act` and other CDFs than tanh, sigmoid and
    normal.

    Source: `vector_quantize_pytorch/finite_scalar_perturbation.py`.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_fsp"
    classes: ClassVar[tuple[str, ...]] = ("FSP",)
    reference: ClassVar[str] = "fsp"
    omitted_methods: ClassVar[tuple[str, ...]] = ("indices_to_act_value", "quantize_act_value")

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        options = {"levels": tuple(original._levels.tolist()), "quantize_probability": original.quantize_rate}
        if original.act_name in CDFS:
            options["cdf"] = CDFS[original.act_name]
        return QuantizerSpec(
            original.dim, original.codebook_size, 1 if original.channel_first else -1, options=options
        )

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        quantized, indices, loss, info = module(z)
        yield "forward", (quantized, indices, loss, dict.fromkeys(info))
        yield "indices_to_codes", module.indices_to_codes(indices)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """The centers of the bins, [K, channels] in (0, 1)."""
        centers: Tensor = original.indices_to_act_value(torch.arange(original.codebook_size))
        return centers

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        refuse(
            f"{type(original).__name__}, with keep_codebook=True,",
            need_inv_act=original.need_inv_act,
            act_name=original.act_name if original.act_name not in CDFS else None,
        )
        expected = (tuple(original._levels.tolist()), CDFS[original.act_name])
        own = (quantizer.level_counts, quantizer.cdf) if isinstance(quantizer, FSP) else None
        if own != expected:
            raise ValueError(
                f"quantizer is {type(quantizer).__name__} with {own or 'no levels'}, but the codes to keep have "
                f"{expected}; expected 'fsp' with these levels and this CDF"
            )
        copy_projections(original, quantizer)
        if original.has_projections:
            quantizer.project_out = _for_centers(original.project_out)

    def forward(self, z: Tensor, eps: float | None = None) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        """See the class. Raises: ValueError for `eps`."""
        refuse("forward", eps=eps)
        quantized, indices, loss = self.quantizer(z)
        info: dict[str, Any] = {}
        if isinstance(self.quantizer, FSP):
            if hasattr(self.original, "vector_norm"):
                norm_loss, info["norm_info"] = self.original.vector_norm(self._project_rows(z))
                loss = loss + norm_loss
            info["level_indices"] = self.indices_to_level_indices(indices)
        return self._scaled(quantized), self._as_original(indices), loss, info

    def indices_to_codes(self, indices: Tensor, eps: float = 1e-6) -> Tensor:
        """The vectors of indices [...], in the layout of x; index −1 gives zero. eps is not used."""
        known = (indices[..., 0] if self.quantizer.composed else indices) >= 0
        vectors = self._scaled(self._decode_indices(indices))
        return vectors.where(known.unsqueeze(self.quantizer.channel_dim), 0.0)

    def indices_to_level_indices(self, indices: Tensor) -> Tensor:
        """The level of each channel, int64 [..., channels]. Raises: ValueError for a quantizer without levels."""
        return index_digits(indices.long().clamp(min=0), self._levels(indices.device))

    def level_indices_to_indices(self, level_indices: Tensor) -> Tensor:
        """The indices [...] of levels [..., channels]. Raises: see `indices_to_level_indices`."""
        weights = digit_weights(self._levels(level_indices.device))
        return self._as_original((level_indices.long() * weights).sum(-1))

    @property
    def has_projections(self) -> bool:
        """Whether codes have another number of channels than x."""
        return self.quantizer.code_dim != self.quantizer.dim

    def _levels(self, device: torch.device) -> Tensor:
        if not isinstance(self.quantizer, GridQuantizer):
            raise ValueError(f"quantizer is {type(self.quantizer).__name__}, which has no levels; expected 'fsp'")
        return torch.tensor(self.quantizer.level_counts, device=device)

    def _as_original(self, indices: Tensor) -> Tensor:
        return indices.to(torch.int32) if self.quantizer.codebook_size <= 2**31 else indices

    def _scaled(self, vectors: Tensor) -> Tensor:
        """Vectors of bin centers, scaled to variance 1; vectors of a projection or another quantizer are
        unchanged."""
        plain = isinstance(self.quantizer, FSP) and isinstance(self.quantizer.project_out, nn.Identity)
        return (vectors - 0.5) / DEVIATION if plain else vectors

    def _project_rows(self, z: Tensor) -> Tensor:
        """z [..., dim] as rows in code space, [N, channels]."""
        rows = z.movedim(self.quantizer.channel_dim, -1).reshape(-1, self.quantizer.dim)
        with without_autocast(z.device):
            return self.quantizer._project(
                self.quantizer.project_in, rows.to(torch.promote_types(z.dtype, torch.float32))
            )


def _for_centers(projection: Any) -> Projection:
    """A projection of centers u that gives what the original's gives for (u − ½) / DEVIATION."""
    weight = projection.weight / DEVIATION
    bias = -0.5 * weight.sum(-1) + (0 if projection.bias is None else projection.bias)
    folded = Projection(projection.in_features, projection.out_features)
    folded.load_state_dict({"weight": weight, "bias": bias})
    return folded
