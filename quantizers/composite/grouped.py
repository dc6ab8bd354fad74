"""Product quantization: groups of channels with a code each."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self

from quantizers.composite.composed import all_valid, check_component, has_codes, joined
from quantizers.composite.repetition import STAGE_OPTIONS, repeated
from quantizers.composite.truncatable import TruncatableComposition
from quantizers.core.arguments.checks import Probability, Size
from quantizers.core.arguments.forwarding import forwarding, forwards, split_options
from quantizers.core.arguments.options import checked
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.parallel import ProcessGroup
from quantizers.core.registry import Builder, create, register
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.kernels.common.vectors import are_finite


class GroupedQuantizer(TruncatableComposition):
    """Product quantization: split the channels into groups, and quantize each with a quantizer of its own.

    G groups with K codes each represent K^G values at the cost of G searches over K codes.

        z = [z_1 … z_G] by channels, value [Q_1(z_1) … Q_G(z_G)]
        loss = Σ_g (channels of group g / all channels) · loss_g

    So with VQ in each group the loss is that of VQ on the whole vector, for any number of groups. If the same
    quantizer is at every position (a shared codebook), all groups are quantized in one call, as rows of one batch.

    **Bitrate.** With `num_codebooks=n`, forward and `encode` use the first groups, which together have n
    codebooks; `decode` takes indices of the first n. The channels of the other groups are zero in the value. A
    model learns to work with fewer by dropout: in a forward in training, with probability `dropout`, a sample (or
    the whole batch) uses only its first n groups, n drawn uniformly from 1 to all. The groups left out have index
    −1 and learn nothing from it: loss_g is a mean over the vectors that reached group g. With a shared codebook
    the loss is the mean over the vectors of all groups that reached it. All groups are computed in any case, as
    in ResidualQuantizer.

    Example:
        >>> import torch
        >>> from quantizers import FSQ, GroupedQuantizer
        >>> quantizer = GroupedQuantizer(4, [FSQ(2, [3, 3]), FSQ(2, [5, 5])])
        >>> quantized, indices, loss = quantizer(torch.tensor([[9.0, 0.0, -9.0, 9.0]]))
        >>> quantized, indices
        (tensor([[ 1.,  0., -1.,  1.]]), tensor([[ 5, 20]]))

    Args:
        dim: channels of x; where it differs from the sum of the groups' channels, x is projected.
        groups: at least one quantizer, each for the next `group.dim` channels. The same object several times is a
            shared codebook.
        channel_dim: axis of x's channels.
        dropout: a probability in [0, 1].
        dropout_by: "sample", the first axis of x, or "batch".

    Shapes: x [..., dim] → quantized [..., dim], indices [..., num_codebooks], loss [].

    Raises: ValueError if `groups` is empty, for dropout outside [0, 1], and for more codebooks than there are.

    Source: Jégou, Douze, Schmid: Product Quantization for Nearest Neighbor Search, 2011; in codecs, HiFi-Codec
        (Yang et al. 2023, arXiv 2305.02765). Dropout as Kumar et al. 2023 (arXiv 2306.06546, §3.3) for stages.
    """

    @checked
    def __init__(
        self,
        dim: Size,
        groups: Sequence[Quantizer],
        *,
        channel_dim: int = -1,
        dropout: Probability = 0.0,
        dropout_by: Literal["sample", "batch"] = "sample",
    ) -> None:
        if not groups:
            raise ValueError("groups is empty, expected at least one quantizer")
        super().__init__(
            dim, groups, code_dim=sum(check_component(group).dim for group in groups), channel_dim=channel_dim
        )
        self.dropout = dropout
        self.dropout_by = dropout_by

    @classmethod
    @forwards(others=f"each group; {STAGE_OPTIONS}")
    @checked
    def from_options(
        cls,
        dim: Size,
        *,
        quantizer: str | Builder = "vq",
        num_groups: Size = 2,
        shared: bool = False,
        channel_dim: int = -1,
        **options: Any,
    ) -> Self:
        """Build `num_groups` quantizers of one kind, each for an equal share of the channels.

        Args:
            quantizer: the name, class or function of each group's quantizer, as for `create`.
            num_groups: how many groups; it divides `dim`.
            shared: one quantizer for all groups.
            options: dropout and dropout_by; all others go to each group.

        Raises: ValueError if `num_groups` does not divide `dim`.
        """
        if dim % num_groups:
            raise ValueError(f"dim is {dim}, expected a multiple of num_groups, {num_groups}")
        own, inner = split_options(cls, options)
        with forwarding(cls.from_options):
            groups = repeated(lambda: create(quantizer, dim // num_groups, **inner), num_groups, shared)
        return cls(dim, groups, channel_dim=channel_dim, **own)

    @property
    def groups(self) -> Sequence[Quantizer]:
        """The quantizer of each group of channels, in order."""
        return self.components

    @property
    def _is_shared(self) -> bool:
        return len(self.quantizers) == 1

    def _quantize_first(self, parts: int, projected: Rows) -> QuantizerOutput:
        z, valid, depths = projected.vectors, projected.valid, self._draw_depths(projected)
        reached = [valid if depths is None else valid & (depths > position) for position in range(parts)]
        if self._is_shared:
            folded = self._folded(parts, projected, torch.stack(reached, -1))
            codes, indices, loss = self.components[0].nested_quantize(folded)
            loss = loss.sum() * (parts / len(self.order))
            columns, values = self._unfolded(parts, indices), self._unfolded(parts, codes)
        else:
            used = self.components[:parts]
            inputs = self._split(z)[:parts]
            if depths is not None:
                inputs = [own.where(rows[:, None], 0.0) for own, rows in zip(inputs, reached, strict=True)]
            outputs = [
                group.nested_quantize(projected.with_vectors(own, rows))
                for group, own, rows in zip(used, inputs, reached, strict=True)
            ]
            columns, values = [output.indices for output in outputs], [output.quantized for output in outputs]
            shares = [group.dim / self.code_dim for group in used]
            loss = torch.stack([s * o.loss.sum() for s, o in zip(shares, outputs, strict=True)])
            loss = loss + self._zero_loss_of_unused(used, z) if parts < len(self.order) else loss
        if depths is not None:  # a row that a group left out has no code there, and keeps those of other groups
            coded = [has_codes(column) for column in columns]
            values = [value.where(rows[:, None], 0.0) for value, rows in zip(values, coded, strict=True)]
            valid = valid & torch.stack([a | ~b for a, b in zip(coded, reached, strict=True)]).all(0)
        value = self._filled(values)
        valid = are_finite(value) if depths is None else valid  # a group may overflow float32
        return QuantizerOutput(value.where(valid[:, None], 0.0), self._mark_missing(joined(columns), valid), loss)

    def _encode_first(self, parts: int, z: Tensor) -> Tensor:
        rows = all_valid(z)
        if self._is_shared:
            folded = self._folded(parts, rows, torch.stack([rows.valid] * parts, -1))
            columns = self._unfolded(parts, self.components[0].nested_encode(folded))
        else:
            pairs = zip(self.components[:parts], self._split(z), strict=False)
            columns = [group.nested_encode(rows.with_vectors(vectors)) for group, vectors in pairs]
        coded = torch.stack([has_codes(column) for column in columns], -1)
        return self._mark_missing(joined(columns), coded.all(-1))

    def _decode(self, indices: Tensor) -> Tensor:
        if self._is_shared:
            group = self.components[0]
            folded = indices.reshape(-1, group.num_codebooks) if group.composed else indices.reshape(-1)
            parts = indices.shape[1] // group.num_codebooks
            return self._filled(self._unfolded(parts, group.nested_decode(folded)))
        pairs = zip(self.components, self._columns(indices), strict=False)
        return self._filled([group.nested_decode(column) for group, column in pairs])

    def _filled(self, values: Sequence[Tensor]) -> Tensor:
        """The values of the first groups side by side, [N, code_dim], zero in the channels of the others."""
        value = torch.cat([*values], -1)
        missing = self.code_dim - value.shape[-1]
        return nn.functional.pad(value, (0, missing)) if missing else value

    def _component_inputs(self, projected: Rows, indices: Tensor) -> list[tuple[RowQuantizer, Tensor, Tensor]]:
        columns = self._columns(indices)
        return list(zip(self.components, self._split(projected.vectors), columns, strict=False))

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        """Initialize each group's quantizer from the channels of all its positions; no group waits for another."""
        pairs = list(zip(self.components, self._split(z), strict=True))
        for group in dict.fromkeys(self.components):
            vectors = torch.cat([vectors for item, vectors in pairs if item is group])
            group.initialize_rows(all_valid(vectors), process_group)

    def _split(self, z: Tensor) -> Sequence[Tensor]:
        return torch.split(z, [group.dim for group in self.components], -1)

    def extra_repr(self) -> str:
        shared = ", shared=True" if self._is_shared else ""
        return f"{super().extra_repr()}, num_groups={len(self.order)}{shared}"

    def _folded(self, parts: int, rows: Rows, reached: Tensor) -> Rows:
        """Reshape the first groups of each row into rows, [N · parts, group.dim]; `reached` is [N, parts] bool."""
        groups = len(self.order)
        vectors = rows.vectors.reshape(rows.vectors.shape[0], groups, self.components[0].dim)[:, :parts]
        vectors = vectors.where(reached[..., None], 0.0) if self.dropout else vectors
        vectors = vectors.flatten(0, 1)
        return Rows(vectors, reached.reshape(-1), torch.Size((*rows.shape, parts)))

    @staticmethod
    def _unfolded(parts: int, folded: Tensor) -> list[Tensor]:
        """Split results of folded rows, [N · parts, ...], by group: [N, ...] each."""
        return [*folded.reshape(-1, parts, *folded.shape[1:]).unbind(1)]


register("grouped", GroupedQuantizer.from_options)
