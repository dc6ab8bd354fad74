"""The convolutions that scales of a pyramid pass after their interpolation."""

from collections.abc import Sequence

from torch import Tensor, nn

from quantizers.composite.pyramid_options import Axes
from quantizers.core.arguments.checks import Share, Size
from quantizers.core.arguments.configurable import configurable
from quantizers.core.arguments.options import checked

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)  # by the number of axes


@configurable("dim", "axes", "ratio")
class BlendConvolution(nn.Module):
    """φ(x) = (1 − r) · x + r · convolution(x), with kernels of three positions on each axis.

    Args:
        dim: channels of x.
        axes: 1, 2 or 3 spatial axes.
        ratio: r in [0, 1].

    Shapes: x [B, dim, *size] → the same.

    Source: φ_k in algorithms 1 and 2 of VAR (arXiv 2404.02905), whose published code takes r = ½.
    """

    @checked
    def __init__(self, dim: Size, axes: Axes, ratio: Share = 0.5) -> None:
        super().__init__()
        self.dim = dim
        self.axes = axes
        self.ratio = ratio
        self.convolution = CONVOLUTIONS[axes - 1](dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        blended: Tensor = (1 - self.ratio) * x + self.ratio * self.convolution(x)
        return blended

    def extra_repr(self) -> str:
        return f"ratio={self.ratio:.4g}"


def spread_blends(position: int, scales: int, blends: Sequence[nn.Module]) -> nn.Module:
    """The module of one of several scales, if there are n modules for them.

    Scale s of S takes the module whose mark is nearest to s/(S − 1); the marks are as in VAR's published code
    (`PhiPartiallyShared`): n numbers at equal distances from 1/(2n), or from 1/12 where n is 4.

    Args: position: s, from 0.
    """
    return blends[nearest_mark(position / max(scales - 1, 1), len(blends))]


def nearest_mark(place: float, count: int) -> int:
    """Which of so many marks is nearest to a place between 0 and 1.

    Places such as 2/9 of VAR's ten scales lie half way between two of four marks, where rounding decides. So the
    marks are rounded as numpy.linspace rounds them; numpy itself would not compile in a forward.
    """
    first = 1 / 3 / count if count == 4 else 1 / 2 / count
    last = 1 - first
    step = (last - first) / max(count - 1, 1)
    marks = [*(first + step * number for number in range(count - 1)), last]
    distances = [abs(mark - place) for mark in marks]
    return distances.index(min(distances))
