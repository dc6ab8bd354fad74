"""The options that quantizers with a codebook share, with their defaults.

Each class of options extends the one before it. A constructor takes the largest one that fits as
`**options: Unpack[...]`, and names the options that are its own or whose default differs.
"""

from collections.abc import Sequence
from typing import Annotated, TypedDict

from torch import Tensor

from quantizers.core.arguments.checks import Frozen, Size, Weight
from quantizers.core.arguments.shared import Default
from quantizers.core.distance import Distance
from quantizers.core.gradients import Gradient
from quantizers.core.regularizer import Regularizer

CodeDim = Annotated[Size | None, Default(None)]
ChannelDim = Annotated[int, Default(-1)]
Regularizers = Annotated[Sequence[Regularizer], Default(())]
DistanceName = Annotated[Distance, Default("euclidean")]
GradientChoice = Annotated[str | Gradient, Default("straight_through")]
CommitmentWeight = Annotated[Weight, Default(0.25)]
CodebookWeight = Annotated[Weight, Default(1.0)]
DecoderGradient = Annotated[bool, Default(False)]


class CodeOptions(TypedDict, total=False):
    """Options of any codebook: the layout of x, the size of a code, and additional losses."""

    code_dim: CodeDim
    channel_dim: ChannelDim
    regularizers: Regularizers


class SearchOptions(CodeOptions, total=False):
    """Options of a codebook that is searched by distance."""

    distance: DistanceName


class GivenOptions(TypedDict, total=False):
    """Options of a table of codes: where it starts, and which codes stay."""

    codebook: Annotated[Tensor | None, Default(None)]
    frozen: Annotated[Frozen, Default(False)]


class OptionalLossOptions(SearchOptions, total=False):
    """Options of a codebook that learns from the decoder's gradient, and whose losses are off by default."""

    commitment_weight: Annotated[Weight, Default(0.0)]
    codebook_weight: Annotated[Weight, Default(0.0)]


class GivenOptionalLossOptions(OptionalLossOptions, GivenOptions, total=False):
    """The same for a table of codes that may be given."""


class GradientOptions(SearchOptions, total=False):
    """Options where the caller also chooses the gradient that the encoder gets."""

    gradient: GradientChoice


class CommitmentOptions(GradientOptions, total=False):
    """Options where a loss also moves the encoder towards its codes."""

    commitment_weight: CommitmentWeight


class VQOptions(CommitmentOptions, total=False):
    """Options of VQ, whose codes learn from a loss and, on request, from the decoder's gradient."""

    codebook_weight: CodebookWeight
    decoder_gradient: DecoderGradient


class HeadOptions(TypedDict, total=False):
    """Options of several codebooks that are searched in one call: VQ's, without `code_dim` and `regularizers`."""

    channel_dim: ChannelDim
    distance: DistanceName
    gradient: GradientChoice
    commitment_weight: CommitmentWeight
    codebook_weight: CodebookWeight
    decoder_gradient: DecoderGradient
