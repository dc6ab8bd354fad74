"""Stages that quantize residuals at scales of their own."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quantizers.composite.composed import ComposedQuantizer
from quantizers.composite.stage_options import Scales, check_stage_scales
from quantizers.core.base import Quantizer
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.core.state.half_state import call_widened, widened
from quantizers.core.state.writing import write


class ScaledStages(ComposedQuantizer, RowQuantizer):
    """A quantizer whose stages quantize r / s_i and contribute s_i · q, of vectors that pass a module first.

    Args:
        dim, code_dim, channel_dim: as in ComposedQuantizer.
        stages: the quantizers.
        entry: a module before the first stage, or None.
        scales: s_i > 0 for each stage, or for each channel of each stage; ones for None.
        learn_scales: make log s a parameter.

    Raises: ValueError for scales that do not fit the stages or are not above 0.
    """

    log_scales: Tensor | None

    def __init__(
        self,
        dim: int,
        stages: Sequence[Quantizer],
        *,
        code_dim: int,
        channel_dim: int,
        entry: nn.Module | None,
        scales: Scales | None,
        learn_scales: bool,
    ) -> None:
        super().__init__(dim, stages, code_dim=code_dim, channel_dim=channel_dim)
        self.entry = entry
        self.initial_scales = check_stage_scales(scales, len(stages), code_dim)
        if scales is None and not learn_scales:
            self.log_scales = None
        elif learn_scales:
            self.log_scales = nn.Parameter(torch.empty(len(stages), code_dim))
        else:
            self.register_buffer("log_scales", torch.empty(len(stages), code_dim))

    def reset_parameters(self) -> None:
        """Reset the scales. The stages reset themselves."""
        if self.log_scales is not None:
            write(self, "log_scales", torch.tensor(self.initial_scales).log())

    @property
    def _index_rule(self) -> dict[str, Any]:
        entry = None if self.entry is None else type(self.entry).__name__
        fixed = self.log_scales is not None and not isinstance(self.log_scales, nn.Parameter)
        scales = self.initial_scales if fixed else None
        return {**super()._index_rule, "entry": entry, "scales": scales}

    def _code_parameters(self) -> Iterator[nn.Parameter]:
        return iter(())  # scales are not codes

    def _apply_entry(self, z: Tensor) -> Tensor:
        return z if self.entry is None else call_widened(self.entry, z)

    def _scale_down(self, residual: Tensor, position: int) -> Tensor:
        return residual if self.log_scales is None else residual / widened(self.log_scales[position]).exp()

    def _scale_up(self, codes: Tensor, position: int) -> Tensor:
        return codes if self.log_scales is None else codes * widened(self.log_scales[position]).exp()

    def extra_repr(self) -> str:
        shown = [super().extra_repr(), f"num_quantizers={len(self.order)}"]
        if self.log_scales is not None:
            scales = [f"{row[0]:.3g}" if len(set(row)) == 1 else "by channel" for row in self.initial_scales]
            shown.append(f"scales=({', '.join(scales)})")
        if isinstance(self.log_scales, nn.Parameter):
            shown.append("learn_scales=True")
        return ", ".join(shown)
