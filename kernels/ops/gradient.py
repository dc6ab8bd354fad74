"""What autograd is told of operations that have no gradient."""

from typing import Any

from torch import Tensor
from torch.library import CustomOpDef  # type: ignore[attr-defined]


def without_gradient(operation: CustomOpDef) -> None:
    """Mark every output of a registered operation as not differentiable, whatever its inputs require."""

    def mark(ctx: Any, inputs: Any, output: Tensor | tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*(output if isinstance(output, tuple) else (output,)))
        ctx.count = len(inputs)

    def nothing(ctx: Any, *_: Any) -> tuple[None, ...]:
        count: int = ctx.count
        return (None,) * count

    operation.register_autograd(nothing, setup_context=mark)
