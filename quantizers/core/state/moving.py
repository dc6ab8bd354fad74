"""Write to a quantizer's state in a forward, also in one that `torch.func` differentiates."""

from typing import Any

import torch
from torch import Tensor

from quantizers.kernels.common.compat import register_vmap
from quantizers.kernels.common.modes import is_transformed
from quantizers.kernels.common.registered import LIBRARY


def move(state: Tensor, value: Tensor) -> None:
    """Write `value` into a buffer, in place and without a gradient.

    `torch.func.grad` and other transforms forbid PyTorch's own operations to write into a buffer that is not an
    argument of the differentiated function. This operation may, so that the buffer moves as a batch norm's does.

    Raises: RuntimeError where `torch.vmap` maps the value but not the buffer.
    """
    if is_transformed():
        torch.ops.quantizers.move(state, value)
    else:
        state.copy_(value)


LIBRARY.define(  # type: ignore[no-untyped-call]
    "move(Tensor(a!) state, Tensor value) -> ()", tags=(torch.Tag.pt2_compliant_tag,)
)


@torch.no_grad()
def _move(state: Tensor, value: Tensor) -> None:
    state.copy_(value)


LIBRARY.impl("move", _move, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_fake("quantizers::move", lambda state, value: None, lib=LIBRARY)


def _move_mapped(
    info: Any, in_dims: tuple[int | None, int | None], state: Tensor, value: Tensor
) -> tuple[None, None]:
    state_dim, value_dim = in_dims
    if state_dim is None:
        raise RuntimeError(
            "torch.vmap runs a forward in training mode of a quantizer whose codes are moving averages, and each "
            "sample would write another value to the same state; call quantizer.eval() first, or map the buffers "
            "too, as torch.func.stack_module_state does"
        )
    state.movedim(state_dim, 0).copy_(value if value_dim is None else value.movedim(value_dim, 0))
    return None, None


register_vmap("quantizers::move", _move_mapped, LIBRARY)
