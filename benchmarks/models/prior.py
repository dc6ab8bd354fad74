"""The base of all priors over codes: sizes, condition, bits, and the steps of coding and sampling.

Codes [B, h, w, n] are predicted in raster order, the n codebooks of a position innermost: p(codes) = Π_t p(code_t
| code_0 … code_{t−1}, condition). A sequence is a grid with one row.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.errors import InputError
from benchmarks.models.checks import check_codes, check_evaluation, check_next, check_sizes
from benchmarks.models.condition import Condition, ConditionMap
from quantizers.core.arguments.checks import check_at_least


class Steps(ABC):
    """Predicts one code after the other, in the prior's order.

        steps = prior.start(batch, (h, w), condition)
        while steps.left:
            codes = choose(steps.logits())  # [B, K_c]: sampled, known, or decoded
            steps.append(codes)             # [B]

    The same calls with the same batch, condition and codes give the same bits, on the same machine with the same
    number of threads. An encoder of codes must therefore use the steps as well, since a forward on the whole grid
    sums in another order. There are no gradients.
    """

    def __init__(self, sizes: tuple[int, ...], batch: int, shape: tuple[int, int]) -> None:
        self.sizes = sizes
        self.batch = batch
        self.shape = shape
        self.taken = 0  # codes per image so far
        self._predicted: Tensor | None = None

    @property
    def left(self) -> int:
        """The number of codes of each image that are not known yet."""
        return math.prod(self.shape) * len(self.sizes) - self.taken

    @property
    def position(self) -> tuple[int, int, int]:
        """The row, column and codebook of the next code."""
        position, codebook = divmod(self.taken, len(self.sizes))
        return *divmod(position, self.shape[1]), codebook

    def logits(self) -> Tensor:
        """Return the logits of the next code, [B, K_c], in the parameters' dtype. Raises: RuntimeError after the
        last code.
        """
        if not self.left:
            raise RuntimeError(f"all {self.taken} codes of each image are known: there is no next one")
        if self._predicted is None:
            with torch.no_grad():
                self._predicted = self._predict(*self.position)
        return self._predicted

    def append(self, codes: Tensor) -> None:
        """Set the next code of each image, [B] int64. Raises: InputError for invalid codes; RuntimeError after the
        last.
        """
        self.logits()  # fills the caches at this position, unless that has happened already
        codebook = self.position[-1]
        check_next("codes", codes, self.batch, self.sizes[codebook])
        with torch.no_grad():
            self._take(codes, *self.position)
        self.taken += 1
        self._predicted = None

    @abstractmethod
    def _predict(self, row: int, column: int, codebook: int) -> Tensor:
        """Return logits [B, K_c]; called once for each code, in order."""

    @abstractmethod
    def _take(self, codes: Tensor, row: int, column: int, codebook: int) -> None:
        """Store the code at this position."""


class Prior(nn.Module, ABC):
    """An autoregressive distribution of codes [B, h, w, n].

    Args:
        sizes: number of codes of each of the n codebooks.
        width: channels of embeddings and features.
        classes: number of labels; None for a prior without labels.
        top_sizes: like `sizes`, for the level above; None for a prior without one.
        top_factor: positions per side for each code of the level above.

    Raises: ValueError for invalid sizes; InputError, in use, for unsuitable codes or conditions.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        width: int,
        *,
        classes: int | None = None,
        top_sizes: Sequence[int] | None = None,
        top_factor: int = 2,
    ) -> None:
        super().__init__()
        self.sizes = check_sizes("sizes", sizes)
        self.width = check_at_least("width", width, 1)
        self.conditional = classes is not None or top_sizes is not None
        self.embeddings = nn.ModuleList(nn.Embedding(size, width) for size in self.sizes)
        self.condition_map = ConditionMap(width, classes=classes, top_sizes=top_sizes, top_factor=top_factor)

    def forward(self, codes: Tensor, condition: Condition | None = None) -> list[Tensor]:
        """Return the logits of every code given the earlier ones: for each codebook [B, h, w, K_c]."""
        return self._logits(*self._embed(codes, condition))

    def bits(self, codes: Tensor, condition: Condition | None = None) -> Tensor:
        """Return −log₂ p(codes), summed over all codes of an image: [B]. Training minimizes its mean."""
        return bits_under(self(codes, condition), codes)

    def start(self, batch: int, shape: tuple[int, int], condition: Condition | None = None) -> Steps:
        """Return the steps from the first code on, for `batch` grids of `shape` (h, w).

        Raises: InputError for an unsuitable grid or condition; RuntimeError in training mode.
        """
        check_evaluation(self)
        if batch < 0 or len(shape) != 2 or min(shape) < 1:
            raise InputError(f"got {batch} grids of shape {tuple(shape)}, expected (h, w) of at least 1 each")
        self._check_grid(*shape)
        with torch.no_grad():
            context = self.condition_map(condition, batch, tuple(shape))
            return self._start(batch, tuple(shape), context)

    def _embed(self, codes: Tensor, condition: Condition | None) -> tuple[list[Tensor], Tensor | None]:
        """Check codes and condition, and return each codebook's embedded codes, and the context."""
        check_codes("codes", codes, self.sizes)
        self._check_grid(*codes.shape[1:3])
        context = self.condition_map(condition, len(codes), tuple(codes.shape[1:3]))
        return [embedding(codes[..., c]) for c, embedding in enumerate(self.embeddings)], context

    @abstractmethod
    def _logits(self, embedded: list[Tensor], context: Tensor | None) -> list[Tensor]:
        """Return the logits from each codebook's embedded codes [B, h, w, width], and context [B, width, h, w]."""

    @abstractmethod
    def _start(self, batch: int, shape: tuple[int, int], context: Tensor | None) -> Steps:
        """Return the steps, with empty caches."""

    def _check_grid(self, height: int, width: int) -> None:
        """Raise an InputError for a grid that is too large. Priors with a limit override this."""


def bits_under(logits: list[Tensor], codes: Tensor) -> Tensor:
    """Return −log₂ of the probability of codes [B, h, w, n] under each codebook's logits [B, h, w, K_c]: [B]."""
    nats = sum(
        F.cross_entropy(codebook_logits.movedim(-1, 1), codes[..., c], reduction="none").sum((1, 2))
        for c, codebook_logits in enumerate(logits)
    )
    return nats / math.log(2)
