"""LFQ of Open-MAGVIT2, now in SEED-Voken, also used by WeTok."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.bases.codebook_view import CodebookView, entry_shape
from quantizers.adapters.bases.copying import groups_of
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.core.base import Quantizer
from quantizers.scalar.lfq import LFQ
from quantizers.scalar.published import PUBLISHED

_WEIGHTS = PUBLISHED["open-magvit2"]


class LossBreakdown(NamedTuple):
    """The parts of the loss, each []."""

    per_sample_entropy: Tensor
    codebook_entropy: Tensor
    commitment: Tensor
    avg_probs: Tensor


Indices = Tensor | list[Tensor]
Output = tuple[Tensor, Tensor, Indices]


class OpenMagvit2Adapter(Adapter):
    """Replaces LFQ of Open-MAGVIT2, WeTok and FlowMo (main branches; tested with a stand-in).

    x [B, D, H, W] → (quantized [B, D, H, W], loss [], indices [B·H·W]). With return_loss_breakdown=True it is that
    tuple, and a LossBreakdown. With n codebooks, each for its share of the channels, indices are [B·H·W·n], and a
    new quantizer is "grouped". The indices of a vector come one after the other.

    The loss is the whole loss of the quantizer, in evaluation too, and the parts in LossBreakdown are zero. The
    model multiplies the loss by the weight of its entropies, 0.1 in the published configurations.

    With `keep_codebook`, "lfq" has the same indices and, in one loss, the entropies and the commitment with their
    published weights, 0.1 and 0.25. Each of n codebooks has a mean assignment of its own; the original takes the
    mean over all of them. FlowMo has other settings, which are no attributes of the original: pass
    `temperature=0.1, commitment_weight=0.25`.

    Not supported: `token_factorization`, which splits indices in two. `mask` in forward; `inv_temperature` and
    `order` have no effect, as in the original without `token_factorization`.

    Source: Luo et al.: Open-MAGVIT2, 2024 (arXiv 2409.04410); `src/Open_MAGVIT2/modules/vqvae/
    lookup_free_quantize.py` in SEED-Voken.
    """

    contract: ClassVar[str] = "open_magvit2"
    classes: ClassVar[tuple[str, ...]] = ("LFQ",)
    channel_dim: ClassVar[int] = 1
    positions: ClassVar[int] = 2
    reference: ClassVar[str] = "lfq"
    # `dtype` is an attribute that each adapter sets.
    omitted_methods: ClassVar[tuple[str, ...]] = ("bits_to_indices", "dtype", "indices_to_bits")

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        if original.token_factorization:
            raise ValueError(
                f"{type(original).__name__} has token_factorization=True and splits each index in two, which this "
                "contract does not support; expected token_factorization=False"
            )
        return cls._read_sizes(original)

    @classmethod
    def _read_sizes(cls, original: Any) -> QuantizerSpec:
        least, most = original.sample_minimization_weight, original.batch_maximization_weight
        bits, count = original.codebook_dim, original.num_codebooks
        keep_options = {
            "entropy_weight": least,
            "diversity": most / least if least else 0.0,
            "temperature": _WEIGHTS["temperature"],
            "commitment_weight": _WEIGHTS["commitment_weight"] / _WEIGHTS["entropy_weight"],
            "group_bits": bits,
        }
        groups = {"num_groups": count, "group_dim": bits} if count > 1 else {}
        return QuantizerSpec(
            original.dim, original.codebook_size, cls.channel_dim, keep_codebook_options=keep_options, **groups
        )

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """All codes of a codebook, [K, log₂ K]; all codebooks have the same."""
        codes: Tensor = original.codebook
        return codes

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Check that the quantizer has the original's codes; there is nothing to copy.

        Raises: ValueError for other codes, and if the original has the second entropy alone.
        """
        if not original.sample_minimization_weight and original.batch_maximization_weight:
            raise ValueError(
                f"{type(original).__name__} has sample_minimization_weight=0, but 'lfq' weights the entropy of "
                "the batch relative to that of each vector; expected a weight above zero, or keep_codebook=False"
            )
        count = original.num_codebooks
        for group in groups_of(quantizer.evaluated, count) if count > 1 else [quantizer.evaluated]:
            if not isinstance(group, LFQ) or group.codebook_size != original.codebook_size:
                raise ValueError(
                    f"quantizer is {type(group).__name__} with {group.codebook_size} codes, but the codes to keep "
                    f"are the signs of {original.codebook_dim} channels; expected 'lfq' without codebook_size="
                )

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """Each call that models make, with its label and what it returned."""
        yield "forward", module(z)
        output, breakdown = module(z, return_loss_breakdown=True)
        yield "forward with return_loss_breakdown", (output, breakdown)
        if module.num_codebooks == 1:
            codes = output[2].reshape(len(z), -1)
            yield "get_codebook_entry", module.get_codebook_entry(codes, entry_shape(z), "")

    def forward(
        self,
        x: Tensor,
        inv_temperature: float = 100.0,
        return_loss_breakdown: bool = False,
        mask: Tensor | None = None,
        return_loss: bool = True,
    ) -> Output | tuple[Output, LossBreakdown]:
        """See the class. With return_loss=False the loss is zero. Raises: ValueError for a mask."""
        if mask is not None:
            raise ValueError("mask is a Tensor, expected None: this contract has no mask")
        quantized, indices, loss = self.quantizer(x)
        zero = torch.zeros_like(loss)
        output = (quantized, loss if return_loss else zero, self._returned(indices))
        return (output, LossBreakdown(zero, zero, zero, zero)) if return_loss_breakdown else output

    def _returned(self, indices: Tensor) -> Indices:
        """The indices as the model expects them."""
        return indices.flatten()

    def get_codebook_entry(self, x: Tensor, bhwc: Sequence[int], order: str | None = None) -> Tensor:
        """The vectors [B, D, H, W] of indices [B, H·W], or [B, H·W, n] of several codebooks.

        Args:
            bhwc: (B, H, W, D). order: has no effect.
        """
        codebooks = (self.num_codebooks,) if self.quantizer.composed else ()
        return self._decode_indices(x.reshape(*bhwc[:3], *codebooks))

    def decode(self, x: Tensor) -> Tensor:
        """The vectors [..., D] of indices [..., n], where n is the number of codebooks."""
        vectors = CodebookView(self.quantizer, self.dtype)(x)
        return vectors if self.quantizer.composed else vectors.flatten(-2)

    @property
    def dim(self) -> int:
        """The number of channels of x."""
        return self.quantizer.dim

    @property
    def num_codebooks(self) -> int:
        """The number of codebooks."""
        return self.quantizer.num_codebooks

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def codebook_dim(self) -> int:
        """The number of channels of a code."""
        return self.quantizer.code_dim
