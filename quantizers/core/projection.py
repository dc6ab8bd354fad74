"""The layers inside quantizers: PyTorch's own arithmetic in classes of ours.

Functions that initialise the weights of a model go by class (`isinstance(module, nn.Linear)`), and would redraw
what a quantizer has drawn.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers.core.state.initialization import SelfInitialized
from quantizers.kernels.ops.arguments import check_device


class Projection(SelfInitialized):
    """x ↦ xWᵀ + b, W [out_features, in_features] and b [out_features], drawn as nn.Linear draws them."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    @classmethod
    @torch.no_grad()
    def of(cls, linear: nn.Linear) -> "Projection":
        """A copy of a layer of PyTorch's, in float32, or float64 where that has it."""
        dtype = torch.promote_types(linear.weight.dtype, torch.float32)
        copied = cls(linear.in_features, linear.out_features, linear.bias is not None)
        copied.load_state_dict({name: value.clone() for name, value in linear.state_dict().items()}, assign=True)
        return copied.to(dtype)

    def reset_parameters(self) -> None:
        """Draw W and b from U(−1/√in_features, 1/√in_features)."""
        bound = 1 / math.sqrt(self.in_features)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        check_device(weight=self.weight, x=x)
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Weights(Projection):
    """A Projection whose forward returns W and b themselves, for an operation that takes both."""

    def forward(self) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        return self.weight, self.bias


class Norm(SelfInitialized):
    """nn.LayerNorm over the last axis: (x − mean) / √(variance + 10⁻⁵) · w + b, w and b [width] ones and zeros."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set w to ones and b to zeros."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias)
