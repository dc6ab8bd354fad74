"""The modules and regularizers that a configuration may contain; nothing else is looked up or called for one.

They are PyTorch's modules listed here, and the classes that registered themselves with `quantizers.configurable`.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from quantizers.core.arguments.configurable import Arguments, ConfigurableClass, configurable_classes
from quantizers.core.regularizer import Regularizer
from quantizers.training import regularizers  # noqa: F401 - defines classes that configurations name

SEQUENTIAL = "nn.Sequential"
KINDS: dict[str, type] = {"module": nn.Module, "regularizer": Regularizer}
"""The keys by which a configuration distinguishes modules from regularizers."""


def _attributes(*names: str) -> Callable[[Any], Arguments]:
    """Read arguments from attributes of the same names; `bias` becomes whether there is one."""

    def arguments(module: nn.Module) -> Arguments:
        values = {name: getattr(module, name) for name in names}
        if "bias" in values:
            values["bias"] = values["bias"] is not None
        return values

    return arguments


_CONVOLUTION = _attributes(
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "bias",
    "padding_mode",
)
_TORCH: dict[type, Callable[[Any], Arguments]] = {
    **dict.fromkeys((nn.Identity, nn.LogSigmoid, nn.Sigmoid, nn.Softsign, nn.Tanh, nn.Tanhshrink), _attributes()),
    **dict.fromkeys(
        (nn.Hardsigmoid, nn.Hardswish, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU), _attributes("inplace")
    ),
    **dict.fromkeys((nn.CELU, nn.ELU), _attributes("alpha", "inplace")),
    nn.GELU: _attributes("approximate"),
    nn.Hardtanh: _attributes("min_val", "max_val", "inplace"),
    nn.LeakyReLU: _attributes("negative_slope", "inplace"),
    nn.PReLU: _attributes("num_parameters", "init"),
    nn.Softplus: _attributes("beta", "threshold"),
    nn.Linear: _attributes("in_features", "out_features", "bias"),
    nn.LayerNorm: _attributes("normalized_shape", "eps", "elementwise_affine", "bias"),
    nn.GroupNorm: _attributes("num_groups", "num_channels", "eps", "affine"),
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _CONVOLUTION),
}
_TORCH_CLASSES = {module: ConfigurableClass(f"nn.{module.__name__}", read) for module, read in _TORCH.items()}


def allowed_classes(kind: str) -> dict[str, type]:
    """The classes that a configuration may contain by their names in it. Args: kind: one of `KINDS`."""
    classes = {**_TORCH_CLASSES, **configurable_classes()}
    return {allowed.name: cls for cls, allowed in classes.items() if issubclass(cls, KINDS[kind])}


def name_and_arguments(instance: nn.Module | Regularizer) -> tuple[str, Arguments] | None:
    """The name of an instance's class in a configuration, and its constructor's arguments, read from the instance.

    Returns: None for a class that is not allowed. A class that derives from an allowed one is another class.
    """
    allowed = {**_TORCH_CLASSES, **configurable_classes()}.get(type(instance))
    return (allowed.name, allowed.arguments(instance)) if allowed else None
