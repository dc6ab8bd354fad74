"""SimVQ of vector-quantize-pytorch."""

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.copying import set_codebook
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.common import PackageAdapter
from quantizers.codebooks.simvq import Matrix, SimVQ
from quantizers.core.base import Quantizer


class SimVQAdapter(PackageAdapter):
    """Replaces SimVQ of vector-quantize-pytorch (tested with 1.32).

    x [B, ..., dim], with `channel_first` [B, dim, ...] → (quantized, indices [B, ...], loss []).

    With `keep_codebook`, "simvq" gets the frozen basis, the transform, both weights and the way the gradient
    passes, so that training continues as in the original. Other methods, and "simvq" if the basis has another
    number of channels than x, get the codes that the transform makes.

    Source: `vector_quantize_pytorch/sim_vq.py`.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_simvq"
    classes: ClassVar[tuple[str, ...]] = ("SimVQ",)
    reference: ClassVar[str] = "simvq"

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        size, dim = trained_simvq_codes(original).shape
        return QuantizerSpec(
            dim, size, 1 if original.channel_first else -1, keep_codebook_options=simvq_settings(original)
        )

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return trained_simvq_codes(original)

    @classmethod
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        copy_simvq(original, quantizer)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        quantized, indices, loss = self.quantizer(x)
        return quantized, indices, loss

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """The vectors of indices [B, ...], in the layout of x."""
        return self._decode_indices(indices)


def simvq_settings(original: Any) -> dict[str, Any]:
    """The options that make losses and gradients those of a SimVQ."""
    return {
        "commitment_weight": original.commitment_weight * original.input_to_quantize_commit_loss_weight,
        "codebook_weight": original.commitment_weight,
        "gradient": "rotation" if original.rotation_trick else "straight_through",
    }


@torch.no_grad()
def trained_simvq_codes(original: Any) -> Tensor:
    """The codes of a SimVQ, [K, dim]."""
    codes: Tensor = original.code_transform(original.frozen_codebook)
    return codes


@torch.no_grad()
def copy_simvq(original: Any, quantizer: Quantizer) -> None:
    """Copy basis and transform of a SimVQ; if the quantizer has no such, the codes."""
    codes = trained_simvq_codes(original)
    if not isinstance(quantizer, SimVQ) or type(quantizer.transform) is not Matrix:
        set_codebook(quantizer, codes)
        return
    quantizer.set_codebook(codes)
    transform = original.code_transform
    if original.frozen_codebook.shape != codes.shape:
        return
    if type(transform) is nn.Linear and transform.bias is None:
        quantizer.transform.load_state_dict(transform.state_dict())
    else:
        quantizer.transform = copy.deepcopy(transform).to(torch.float32)
    quantizer.basis.copy_(original.frozen_codebook)
