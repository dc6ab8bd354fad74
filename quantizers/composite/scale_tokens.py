"""What the tokens of scales stand for: vectors, latents, and the inputs of a model over scales."""

import abc
import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from quantizers.composite.pyramid import GivenSizes, Size, as_vectors, count_cells, upsample
from quantizers.composite.scale_sizes import ScaleMaps, ScaleSizes
from quantizers.core.arguments.checks import check_at_least, check_integers, check_tensor
from quantizers.core.layout import from_rows
from quantizers.core.method_calls import through_forward
from quantizers.core.output import NO_CODE
from quantizers.kernels.common.dispatch import without_autocast


class ScaleTokens(ScaleSizes):
    """A quantizer whose value is the sum of what each scale's tokens stand for.

    A subclass defines `_value_of`.
    """

    dropout: float

    @abc.abstractmethod
    def _value_of(self, position: int, scales: int, tokens: Tensor, size: Size) -> Tensor:
        """The value [B, code_dim, *size] of the tokens [B, *size_k] of one scale, zero for index −1.

        Args: position: of the scale among so many `scales`, from 0.
        """

    @through_forward
    def decode(self, indices: Tensor, size: GivenSizes | None = None) -> Tensor:
        """The quantized vectors of indices [..., L]: [..., *size, dim], the channels on `channel_dim`.

        Indices may be those of the first scales alone. A vector is zero where the last of the scales that its
        map has tokens of has index −1.

        Args: size: the size of x's spatial axes, or the sizes of all scales. Default: all axes equal, all scales.

        Raises: as Quantizer.decode; ValueError if the number of tokens does not fit the size.
        """
        maps = self._check_maps(indices, size)
        with without_autocast(indices.device):
            rows = self._project(self.project_out, as_vectors(self._sum(maps)))
            rows = rows.where(self._is_coded(maps).reshape(-1, 1), 0.0)
        return from_rows(rows, torch.Size((*indices.shape[:-1], *maps.size)), self.channel_dim)

    @through_forward
    def latents(self, indices: Tensor, size: GivenSizes | None = None, *, up_to: int | None = None) -> Tensor:
        """The sum of the first scales' values in code space: [..., *size, code_dim], channels on `channel_dim`.

        Args:
            indices, size: as for `decode`.
            up_to: how many scales to add; by default all that have indices.

        Raises: as `decode`; ValueError for `up_to` outside 1 to the number of scales that have indices.
        """
        maps = self._check_maps(indices, size)
        count = len(maps.tokens) if up_to is None else check_at_least("up_to", up_to, 1)
        if count > len(maps.tokens):
            raise ValueError(
                f"up_to is {up_to}, expected at most {len(maps.tokens)}, the scales that have indices"
            )
        with without_autocast(indices.device):
            total = self._sum(maps._replace(tokens=maps.tokens[:count]))
        shape = torch.Size((*indices.shape[:-1], *maps.size))
        return from_rows(as_vectors(total), shape, self.channel_dim)

    @through_forward
    def scale_inputs(self, indices: Tensor, size: GivenSizes | None = None) -> Tensor:
        """What an autoregressive model over scales reads to predict each scale after the first (teacher forcing).

        For scale k it is the sum of the values of the scales before, in code space, averaged over the cells of
        scale k. `start_scales` gives the same step by step.

        Args: indices, size: as for `decode`. Tokens of the last scale have no influence, and may be missing.

        Returns: [..., L − L_0, code_dim] with L_0 tokens in the first scale, in the order of the indices; of as
            many scales as follow those that have indices.

        Source: the input of the transformer in VAR (arXiv 2404.02905, figure 4; `idxBl_to_var_input`).
        """
        maps = self._check_maps(indices, size)
        steps = ScaleSteps(self, len(maps.tokens[0]), maps.sizes)
        inputs = []
        with without_autocast(indices.device):
            for tokens in maps.tokens[: len(maps.sizes) - 1]:
                steps._add(tokens)
                inputs.append(steps.inputs)
        found = torch.cat([each for each in inputs if each is not None] or [self._no_inputs(maps)], 1)
        return found.reshape(*indices.shape[:-1], *found.shape[1:])

    def start_scales(self, batch: int, size: GivenSizes) -> "ScaleSteps":
        """Begin to choose the tokens of `batch` maps scale by scale, as a model over scales samples them.

            steps = quantizer.start_scales(batch, (16, 16))
            while steps.left:
                tokens = choose(steps.inputs)   # [batch, n_k] from [batch, n_k, code_dim], or from None at first
                steps.append(tokens)
            quantizer.decode(steps.indices, (16, 16))

        Args: size: the size of the maps, or the sizes of all scales.
        """
        return ScaleSteps(self, check_at_least("batch", batch, 0), self._all_sizes(size))

    @through_forward
    def _next_value(self, position: int, scales: int, tokens: Tensor, size: Size) -> Tensor:
        with without_autocast(tokens.device):
            return self._value_of(position, scales, tokens, size)

    def _no_inputs(self, maps: ScaleMaps) -> Tensor:
        return self._sum(maps).flatten(2).movedim(1, -1)[:, :0]

    def _sum(self, maps: ScaleMaps) -> Tensor:
        """The sum of the values of all scales that have tokens, [B, code_dim, *size]."""
        scales = len(maps.sizes)
        values = [self._value_of(k, scales, tokens, maps.size) for k, tokens in enumerate(maps.tokens)]
        return functools.reduce(torch.add, values)

    def _is_coded(self, maps: ScaleMaps) -> Tensor:
        """Which positions have a code, bool [B, *size]: those with one in the last scale that a map has."""
        if not self.dropout and len(maps.tokens) == len(maps.sizes):
            return maps.tokens[-1] != NO_CODE
        coded = torch.zeros_like(self._is_covered(maps.tokens[0], maps.size))
        for tokens in maps.tokens:
            has_any = (tokens != NO_CODE).flatten(1).any(1).reshape(-1, *[1] * self.axes)
            coded = self._is_covered(tokens, maps.size).where(has_any, coded)
        return coded

    def _is_covered(self, tokens: Tensor, size: Size) -> Tensor:
        """Which positions [B, *size] lie in a cell that has a token."""
        has_token = (tokens != NO_CODE)[:, None].to(torch.float32)
        return upsample(has_token, size, "nearest")[:, 0] > 0


class ScaleSteps:
    """The tokens of maps, chosen scale by scale; `PyramidQuantizer.start_scales` makes one.

    Attributes:
        sizes: the sizes of all scales.
        latents: the sum of the values of the scales so far, [batch, code_dim, *size]; None before the first.
    """

    def __init__(self, quantizer: ScaleTokens, batch: int, sizes: list[Size]) -> None:
        self._quantizer = quantizer
        self._batch = batch
        self._tokens: list[Tensor] = []
        self.sizes = sizes
        self.latents: Tensor | None = None

    @property
    def left(self) -> int:
        """How many scales have no tokens yet."""
        return len(self.sizes) - len(self._tokens)

    @property
    def size(self) -> Size:
        """The size of the next scale. Raises: RuntimeError after the last one."""
        if not self.left:
            raise RuntimeError(f"all {len(self.sizes)} scales have their tokens: there is no next one")
        return self.sizes[len(self._tokens)]

    @property
    def inputs(self) -> Tensor | None:
        """The latents averaged over the cells of the next scale, [batch, n_k, code_dim].

        None before the first scale. Raises: RuntimeError after the last one.
        """
        size = self.size
        if self.latents is None:
            return None
        return F.interpolate(self.latents, size=size, mode="area").flatten(2).movedim(1, -1)

    @property
    def indices(self) -> Tensor:
        """The tokens so far, [batch, L]."""
        if not self._tokens:
            return torch.empty(self._batch, 0, dtype=torch.int64)
        return torch.cat([tokens.flatten(1) for tokens in self._tokens], 1)

    def append(self, tokens: Tensor) -> None:
        """Set the tokens of the next scale.

        Args: tokens: integers [batch, n_k] or [batch, *size_k].

        Raises: ValueError for another shape; TypeError and IndexError as `decode`; RuntimeError after the last.
        """
        size = self.size
        check_integers("tokens have", check_tensor("tokens", tokens))
        if tuple(tokens.shape) not in ((self._batch, count_cells(size)), (self._batch, *size)):
            raise ValueError(
                f"tokens have shape {tuple(tokens.shape)}, expected ({self._batch}, {count_cells(size)}), one for "
                f"each cell of a scale of size {size}"
            )
        known = torch.cat([*(own.flatten(1) for own in self._tokens), tokens.flatten(1)], 1)
        self._add(self._quantizer._check_maps(known, self.sizes).tokens[-1])

    def _add(self, tokens: Tensor) -> None:
        position = len(self._tokens)
        value = self._quantizer._next_value(position, len(self.sizes), tokens, self.sizes[-1])
        self.latents = value if self.latents is None else self.latents + value
        self._tokens.append(tokens)
