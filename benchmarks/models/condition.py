"""The condition of a prior: the class of the image, and the codes of the level above."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from benchmarks.errors import InputError
from benchmarks.models.checks import check_codes, check_next, check_sizes
from benchmarks.models.convolutions import Residual
from quantizers.core.arguments.checks import check_at_least

TOP_BLOCKS = 4  # 3 × 3 convolutions over the top map, which see four codes in each direction


@dataclass(frozen=True)
class Condition:
    """What the codes are conditioned on.

    label  [B] int64, the class of each image
    top    [B, h', w', n'] int64, the codes of the level above
    """

    label: Tensor | None = None
    top: Tensor | None = None


class ConditionMap(nn.Module):
    """Maps a condition to one vector for each position of the grid, [B, width, h, w].

    The label's embedding is added at every position. The top level's codes are embedded, mixed by residual blocks
    without a mask (all of them are known), and upsampled by a transposed convolution whose stride equals its
    kernel size, so that each position under a top code gets its own vector. Razavi et al. 2019 (arXiv 1906.00446,
    section 3.2) also use residual blocks.

    Args:
        width: channels ≥ 1.
        classes: number of labels, None without labels.
        top_sizes: sizes of the top level's codebooks, None without a top level.
        top_factor: positions per side for each top code.

    Raises: ValueError for invalid sizes; InputError, in use, for an unsuitable condition.
    """

    def __init__(
        self,
        width: int,
        *,
        classes: int | None = None,
        top_sizes: Sequence[int] | None = None,
        top_factor: int = 2,
    ) -> None:
        super().__init__()
        self.width = width
        self.classes = classes
        self.top_sizes = None if top_sizes is None else check_sizes("top_sizes", top_sizes)
        self.top_factor = check_at_least("top_factor", top_factor, 1)
        if classes is not None:
            self.label = nn.Embedding(check_at_least("classes", classes, 1), width)
        if self.top_sizes is not None:
            self.top = nn.ModuleList(nn.Embedding(size, width) for size in self.top_sizes)
            self.mix = nn.Sequential(*(Residual(width) for _ in range(TOP_BLOCKS)))
            self.upsample = nn.ConvTranspose2d(width, width, top_factor, stride=top_factor)

    def forward(self, condition: Condition | None, batch: int, shape: tuple[int, int]) -> Tensor | None:
        """Return [batch, width, h, w] for a grid of `shape`; None without a condition."""
        condition = condition or Condition()
        _check_given("label", condition.label, self.classes is not None)
        _check_given("top", condition.top, self.top_sizes is not None)
        label = None if condition.label is None else self._label_map(condition.label, batch, shape)
        top = None if condition.top is None else self._top_map(condition.top, batch, shape)
        if label is None or top is None:
            return top if label is None else label
        return label + top

    def _label_map(self, label: Tensor, batch: int, shape: tuple[int, int]) -> Tensor:
        check_next("labels", label, batch, self.label.num_embeddings)
        return self.label(label)[:, :, None, None].expand(-1, -1, *shape)

    def _top_map(self, codes: Tensor, batch: int, shape: tuple[int, int]) -> Tensor:
        check_codes("top codes", codes, self.top_sizes)
        covered = tuple(self.top_factor * side for side in codes.shape[1:3])
        if len(codes) != batch or covered != tuple(shape):
            raise InputError(
                f"top codes have shape {tuple(codes.shape)}, which is {len(codes)} grids of "
                f"{covered[0]} × {covered[1]} codes below it, expected {batch} of {shape[0]} × {shape[1]}"
            )
        embedded = sum(embedding(codes[..., c]) for c, embedding in enumerate(self.top))
        return self.upsample(self.mix(embedded.movedim(-1, 1)))


def _check_given(name: str, given: Tensor | None, expected: bool) -> None:
    if (given is not None) != expected:
        received, wanted = ("no " if given is None else "a "), ("with" if expected else "without")
        raise InputError(
            f"the condition has {received}{name}, expected one {wanted} it: the prior was built that way"
        )
