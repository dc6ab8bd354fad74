"""Linear and normalization layers inside quantizers, which compute the same as PyTorch's.

They do not derive from PyTorch's classes: functions that initialize the weights of a model select layers by class
(`isinstance(module, nn.Linear)`), and would overwrite the initial weights of a quantizer.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers.core.state.initialization import SelfInitialized
from quantizers.kernels.common.arguments import check_device


class Projection(SelfInitialized):
    """x ↦ xWᵀ + b, with W [out_features, in_features] and b [out_features] initialized as in nn.Linear."""

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
        """A copy of a PyTorch layer, in float64 if the layer is, otherwise in float32."""
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
    """A Projection whose forward returns W and b, for an operation that takes both."""

    def forward(self) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        return self.weight, self.bias


class Norm(SelfInitialized):
    """nn.LayerNorm over the last axis: (x − mean) / √(variance + 10⁻⁵) · w + b.

    w [width] is initialized to ones, b [width] to zeros.
    """

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
