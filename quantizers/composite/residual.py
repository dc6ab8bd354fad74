"""Residual quantization: each stage quantizes what the stages before it left."""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self

from quantizers.codebooks.nearest import squared_distances
from quantizers.composite.beam import beam_search
from quantizers.composite.composed import Initialize, all_valid, check_component, has_codes, joined
from quantizers.composite.repetition import STAGE_OPTIONS, repeated
from quantizers.composite.scaled_stages import ScaledStages
from quantizers.composite.stage_options import Scales, check_sizes
from quantizers.composite.truncatable import TruncatableComposition
from quantizers.core.arguments.checks import (
    Probability,
    Size,
    check_at_least,
    check_numbers,
    elements,
)
from quantizers.core.arguments.forwarding import forwarding, forwards, split_options
from quantizers.core.arguments.options import checked
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows, from_rows
from quantizers.core.method_calls import through_forward
from quantizers.core.output import QuantizerOutput
from quantizers.core.parallel import ProcessGroup
from quantizers.core.registry import Builder, create, register
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.kernels.common.dispatch import without_autocast


class ResidualQuantizer(TruncatableComposition, ScaledStages):
    """Residual quantization: each stage quantizes what the stages before it left, and the values add up.

    Any quantizers of single vectors can be the stages.

    Algorithm 1 of SoundStream, with r_0 = z, or entry(z), and s_i = 1 without `scales`:

        q_i = s_i · Q_i(r_i / s_i)
        r_{i+1} = r_i − q_i
        value = Σ_i q_i, loss = Σ_i loss_i

    Each stage's loss is a mean over the vectors that reached the stage; `forward_stages` returns them one by one.
    Gradients follow the chain rule through these equations. With straight-through stages z gets the decoder's
    gradient itself and the commitment of the first stage; with stages that project (Kumar et al. 2023, arXiv
    2306.06546) it gets the commitment of all.

    **Bitrate.** With `num_codebooks=n`, forward and `encode` stop after n codebooks; `decode` takes indices of the
    first n. A model learns to work with fewer by dropout: in a forward in training, with probability `dropout`, a
    sample (or the whole batch) uses only its first n stages, n drawn uniformly from 1 to all. The stages left out
    have index −1, add zero, and learn nothing from it (`dropout=0.5` by sample: Kumar et al. 2023, §3.3). They are
    computed all the same, so that ranks never wait for each other and a graph stays one graph.

    **Bounded quantizers** (FSQ, LFQ) cannot follow residuals that shrink: `scales` divides the residual before a
    stage and multiplies its code; `entry` bounds z before the first stage. See "residual_fsq".

    Example:
        >>> import torch
        >>> from quantizers import FSQ, ResidualQuantizer
        >>> stages = [FSQ(1, [3], bound="clamp"), FSQ(1, [3], bound="clamp")]
        >>> quantizer = ResidualQuantizer(1, stages, scales=[1.0, 0.25])
        >>> quantized, indices, loss = quantizer(torch.tensor([[0.8], [-0.2]]))
        >>> quantized, indices
        (tensor([[ 0.7500],
                [-0.2500]]), tensor([[2, 0],
                [1, 0]]))

    Args:
        dim: channels of x; where it differs from the stages' dim, x is projected.
        stages: at least one quantizer, all of one `dim`. The same object several times is a shared codebook.
        channel_dim: axis of x's channels.
        entry: a module before the first stage, such as nn.Tanh(); the value approximates its output.
        scales: s_i > 0 for each stage, or for each channel of each stage.
        learn_scales: make log s a parameter; s starts at one if `scales` is None.
        dropout: a probability in [0, 1].
        dropout_by: "sample", the first axis of x, or "batch".

    Shapes: x [..., dim] → quantized [..., dim], indices [..., num_codebooks], loss [].

    Raises: ValueError for no stage, stages that differ in dim, scales that do not fit or are not above 0, dropout
        outside [0, 1], and for more codebooks than there are.

    Source: Zeghidour et al.: SoundStream, 2021 (arXiv 2107.03312).
    """

    @checked
    def __init__(
        self,
        dim: Size,
        stages: Sequence[Quantizer],
        *,
        channel_dim: int = -1,
        entry: nn.Module | None = None,
        scales: Annotated[Scales, check_numbers] | None = None,
        learn_scales: bool = False,
        dropout: Probability = 0.0,
        dropout_by: Literal["sample", "batch"] = "sample",
    ) -> None:
        dims = sorted({check_component(stage).dim for stage in stages})
        if len(dims) != 1:
            raise ValueError(f"stages have dims {dims}, expected at least one stage, and one dim for all")
        super().__init__(
            dim,
            stages,
            code_dim=dims[0],
            channel_dim=channel_dim,
            entry=entry,
            scales=scales,
            learn_scales=learn_scales,
        )
        self.dropout = dropout
        self.dropout_by = dropout_by

    @classmethod
    @forwards(others=f"each stage; {STAGE_OPTIONS}")
    @checked
    def from_options(
        cls,
        dim: Size,
        *,
        quantizer: str | Builder = "vq",
        num_quantizers: Size | None = None,
        stage_dim: Size | None = None,
        shared: bool = False,
        channel_dim: int = -1,
        **options: Any,
    ) -> Self:
        """Build stages of one kind.

        Args:
            quantizer: the name, class or function of the stages, as for `create`.
            num_quantizers: how many stages. Default: one for each size in `codebook_size`, or 4 if that is a
                single number.
            stage_dim: channels of the vectors that the stages quantize, default `dim`. Where it differs, x is
                projected once, in front of the first stage; with `code_dim` each stage projects instead.
            shared: one codebook for all stages.
            options: further arguments of the constructor; all others (codebook_size, code_dim, decay, ...) go to
                each stage. `codebook_size` may be a sequence with one size for each stage.

        Raises: ValueError unless there is one size per stage, and for several sizes of a shared codebook.
        """
        own, inner = split_options(cls, options)
        stage_dim = dim if stage_dim is None else stage_dim
        with forwarding(cls.from_options):
            sizes = elements(inner.get("codebook_size"))
            if sizes is None:
                stages = repeated(lambda: create(quantizer, stage_dim, **inner), num_quantizers or 4, shared)
            else:
                del inner["codebook_size"]
                sizes = check_sizes(sizes, num_quantizers, shared)
                stages = [create(quantizer, stage_dim, size, **inner) for size in sizes]
        return cls(dim, stages, channel_dim=channel_dim, **own)

    @property
    def same_indices_in_training(self) -> bool:
        """Whether training uses every stage, with the indices of `encode`, and each leaves the same residual."""
        leaves_same = all(stage.value_is_code for stage in self.components[:-1])
        return leaves_same and super().same_indices_in_training

    @property
    def stages(self) -> Sequence[Quantizer]:
        """The quantizers whose values add up, in their order."""
        return self.components

    @through_forward
    def forward_stages(
        self, x: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> QuantizerOutput:
        """`forward` with one loss for each stage used: loss [stages]."""
        return self._forward_first(x, mask, num_codebooks)

    @through_forward
    def forward_values(
        self, x: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> tuple[QuantizerOutput, list[Tensor]]:
        """`forward_stages`, and the value of each stage used by itself, [..., dim] like x.

        It is what `decode` gives for this stage's index alone, with the gradient of the forward, and zero for a
        vector without an index. A loss on the first value distills a teacher into the first codebook (Zhang et al.
        2023, arXiv 2308.16692).
        """
        parts = self._count_parts(num_codebooks)
        kept: list[tuple[Tensor, Tensor]] = []
        output = self._forward(x, mask, lambda rows: self._quantize_first(parts, rows, kept.append))
        with without_autocast(x.device):
            values = [
                self._project(self.project_out, codes).where(coded[:, None], 0.0).to(x.dtype)
                for codes, coded in kept
            ]
        shape = output.indices.shape[:-1]
        return output, [from_rows(value, shape, self.channel_dim, like=x) for value in values]

    @through_forward
    def decode_stages(self, indices: Tensor) -> Tensor:
        """The contribution of each stage to the value, before the projection out: [stages, ..., code_dim].

        Args: indices: as for `decode`, of all codebooks or only the first. Index −1 adds zero.

        Raises: as `decode`.
        """
        indices = self._check_indices(indices)
        with without_autocast(indices.device):
            codes = torch.stack(self._stage_codes(indices.reshape(-1, indices.shape[-1])))
        return codes.reshape(len(codes), *indices.shape[:-1], self.code_dim)

    @through_forward
    @torch.no_grad()
    def encode(
        self, x: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None, beam_width: int = 1
    ) -> Tensor:
        """The indices that evaluation gives for x, in either mode: int64 [..., num_codebooks].

        Args:
            num_codebooks: how many codebooks to use, from the first; default all.
            beam_width: the width of a beam search over the stages, see `composite.beam`. 1 takes the best code of
                each stage, as `forward` does. With a larger width a vector takes the result of the search where
                that is nearer in the space of the stages.

        Raises: ValueError for more codebooks than there are, and for a beam over stages with several codebooks.
        """
        return self._encode_input(x, mask, num_codebooks=num_codebooks, beam_width=beam_width)

    def encode_rows(self, rows: Rows, num_codebooks: int | None = None, beam_width: int = 1) -> Tensor:
        """`encode` for rows [N, dim], called by quantizers that contain this one."""
        stages, projected = self.components[: self._count_parts(num_codebooks)], self._project_in(rows)
        indices = self._greedy(projected.vectors, stages)
        if (beam_width := check_at_least("beam_width", beam_width, 1)) > 1:
            indices = self._improve_by_beam(indices, projected.vectors, stages, beam_width)
        return self._mark_missing(indices, projected.valid)

    def _quantize_first(
        self, parts: int, projected: Rows, keep: Callable[[tuple[Tensor, Tensor]], None] | None = None
    ) -> QuantizerOutput:
        """See `TruncatableQuantizer`.

        Args: keep: gets the codes [N, code_dim] that each stage adds, and which rows have one, bool [N].
        """
        stages = self.components[:parts]
        residual, total = self._apply_entry(projected.vectors), torch.zeros_like(projected.vectors)
        depths = self._draw_depths(projected)
        valid = projected.valid
        columns, losses = [], []
        for position, stage in enumerate(stages):
            reached = valid if depths is None else valid & (depths > position)
            scaled = self._scale_down(residual, position).where(reached[:, None], 0.0)
            codes, column, loss = stage.nested_quantize(projected.with_vectors(scaled, reached))
            coded = has_codes(column)
            codes = self._scale_up(codes.where(coded[:, None], 0.0), position)
            if keep is not None:
                keep((codes, coded))
            total, residual = total + codes, residual - codes
            valid = valid & (coded | ~reached)  # a residual that overflows float32 has no code
            columns.append(column)
            losses.append(loss.sum())
        stage_losses = torch.stack(losses) + self._zero_loss_of_unused(stages, projected.vectors)
        return QuantizerOutput(total, self._mark_missing(joined(columns), valid), stage_losses)

    def _encode_first(self, parts: int, z: Tensor) -> Tensor:
        return self._greedy(z, self.components[:parts])

    def _greedy(self, z: Tensor, stages: Sequence[RowQuantizer]) -> Tensor:
        residual, columns = self._apply_entry(z), []
        valid = torch.ones(z.shape[:1], dtype=torch.bool, device=z.device)
        for position, stage in enumerate(stages):
            columns.append(stage.nested_encode(all_valid(self._scale_down(residual, position))))
            valid = valid & has_codes(columns[-1])
            codes = self._scale_up(stage.nested_decode(columns[-1]), position)
            residual = (residual - codes).where(valid[:, None], 0.0)
        return self._mark_missing(joined(columns), valid)

    def _improve_by_beam(self, greedy: Tensor, z: Tensor, stages: Sequence[RowQuantizer], width: int) -> Tensor:
        """The indices [N, stages] of a beam search for vectors that it brings nearer, else the greedy ones."""
        if any(stage.composed for stage in stages):
            raise ValueError("a stage has several codebooks, expected one in each for a beam search")
        target = self._apply_entry(z)
        all_indices = [torch.arange(stage.codebook_size, device=z.device) for stage in stages]
        values = [stage.nested_decode(indices) for stage, indices in zip(stages, all_indices, strict=True)]
        books = [self._scale_up(codes, position).to(z.dtype) for position, codes in enumerate(values)]
        found = beam_search(target, books, width)
        errors = [squared_distances(target, self._decode(indices)) for indices in (found, greedy)]
        return found.where((errors[0] < errors[1])[:, None], greedy)

    def _decode(self, indices: Tensor) -> Tensor:
        return functools.reduce(torch.add, self._stage_codes(indices))

    def _stage_codes(self, indices: Tensor) -> list[Tensor]:
        """The contribution [N, code_dim] of each stage for indices [N, num_codebooks]."""
        pairs = zip(self.components, self._columns(indices), strict=False)
        return [
            self._scale_up(stage.nested_decode(column), position) for position, (stage, column) in enumerate(pairs)
        ]

    def _component_inputs(self, projected: Rows, indices: Tensor) -> list[tuple[RowQuantizer, Tensor, Tensor]]:
        residual, inputs = self._apply_entry(projected.vectors), []
        for position, (stage, column) in enumerate(zip(self.components, self._columns(indices), strict=False)):
            inputs.append((stage, self._scale_down(residual, position), column))
            residual = residual - self._scale_up(stage.nested_decode(column), position)
        return inputs

    def _initialize_batch(self, projected: Rows, process_group: ProcessGroup) -> None:
        self._initialize_in_order(projected, self._initialize_components, process_group)

    def _initialize_components(self, projected: Rows, initialize: Initialize) -> None:
        residual = self._apply_entry(projected.vectors[projected.valid])
        for position, stage in enumerate(self.components):
            inputs = self._scale_down(residual, position)
            initialize(stage, inputs)
            codes = stage.nested_decode(stage.nested_encode(all_valid(inputs)))
            residual = residual - self._scale_up(codes, position)


register("residual", ResidualQuantizer.from_options)
