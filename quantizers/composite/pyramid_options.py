"""The options that multi-scale quantizers share, with their defaults."""

from collections.abc import Sequence
from typing import Annotated, Literal, TypedDict

from torch import nn

from quantizers.core.arguments.checks import Bounds, Probability
from quantizers.core.arguments.shared import Default

Axes = Annotated[int, Bounds("1, 2 or 3", lambda value: 1 <= value <= 3)]


class PyramidOptions(TypedDict, total=False):
    """Options of PyramidQuantizer, see there."""

    channel_dim: Annotated[int, Default(-1)]
    blends: Annotated[Sequence[nn.Module], Default(())]
    entry: Annotated[nn.Module | None, Default(None)]
    dropout: Annotated[Probability, Default(0.0)]
    dropout_by: Annotated[Literal["sample", "batch"], Default("sample")]
    flip_probability: Annotated[Probability, Default(0.0)]
