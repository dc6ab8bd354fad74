"""What the contracts of vector-quantize-pytorch have in common: attributes, and arguments that have no meaning."""

from typing import Any

import torch
from torch import Tensor, nn

from quantizers.adapters.adapter import Adapter
from quantizers.adapters.last_loss import LastLossAdapter
from quantizers.base import Quantizer
from quantizers.projection import Projection


class PackageAdapter(Adapter):
    """The attributes that models read of a quantizer of the package."""

    @property
    def dim(self) -> int:
        """Channels of x."""
        return self.quantizer.dim

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def codebook_dim(self) -> int:
        """Channels of a code."""
        return self.quantizer.code_dim

    @property
    def project_in(self) -> nn.Module:
        """From the model's channels to those of a code."""
        return self.quantizer.project_in

    @property
    def project_out(self) -> nn.Module:
        """And back."""
        return self.quantizer.project_out

    @property
    def codebook(self) -> Tensor:
        """All codes, [K, codebook_dim]; of several codebooks [n, K, ...]. Assign to set them."""
        return self.quantizer.codebook

    @codebook.setter
    def codebook(self, codes: Tensor) -> None:
        setter = getattr(self.quantizer, "set_codebook", None)
        if setter is None:
            raise ValueError(f"{type(self.quantizer).__name__} has no codes that can be set one by one")
        setter(codes)


class WithoutLossAdapter(LastLossAdapter, PackageAdapter):
    """For a contract that returns no loss: `loss` is that of the last forward, for the training step to add."""

    def _quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quantized, indices, self.loss = self.quantizer(x)
        return quantized, indices


def refuse(where: str, **settings: object) -> None:
    """Raises: ValueError for the first setting that is given: not None, False, or a weight of zero."""
    for name, value in settings.items():
        is_object = isinstance(value, Tensor | nn.Module)
        if is_object or value:
            shown = f"a {type(value).__name__}" if is_object else repr(value)
            raise ValueError(f"{where} has {name}={shown}, which this contract does not keep; expected none")


@torch.no_grad()
def keep_projections(original: Any, quantizer: Quantizer) -> None:
    """Copies of the original's projections take the place of the quantizer's, which leads to as many channels."""
    for name in ("project_in", "project_out"):
        projection = getattr(original, name)
        setattr(quantizer, name, Projection.of(projection) if isinstance(projection, nn.Linear) else nn.Identity())
